/*
 * Machines from other formats and back: what each says becomes the same description, round trips
 * keep all of it, and what cannot be carried over is in the report.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "machine/appliance/appliance.h"

static const char vmx_text[] =
    ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"19\"\n"
    "displayName = \"Web Server (1)\"\nannotation = \"one|0Atwo |22x|22\"\n"
    "guestOS = \"debian12-64\"\nmemsize = \"256\"\nnumvcpus = \"4\"\ncpuid.coresPerSocket = \"2\"\n"
    "uuid.bios = \"56 4d 1c a8 00 11 22 33-44 55 66 77 88 99 aa bb\"\nfirmware = \"efi\"\n"
    "uefi.secureBoot.enabled = \"TRUE\"\n"
    "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\n"
    "scsi0:0.fileName = \"disk0.vmdk\"\nscsi0:0.deviceType = \"scsi-hardDisk\"\n"
    "scsi1.present = \"TRUE\"\nscsi1.virtualDev = \"lsilogic\"\nscsi1:3.present = \"TRUE\"\n"
    "scsi1:3.fileName = \"disk1.vmdk\"\nscsi1:3.deviceType = \"scsi-hardDisk\"\n"
    "sata0.present = \"TRUE\"\nsata0:2.present = \"TRUE\"\nsata0:2.fileName = \"disk2.vmdk\"\n"
    "nvme0.present = \"TRUE\"\nnvme0:0.present = \"TRUE\"\nnvme0:0.fileName = \"disk3.vmdk\"\n"
    "ide0:1.present = \"TRUE\"\nide0:1.fileName = \"disk4.vmdk\"\n"
    "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-raw\"\n"
    "ide1:0.fileName = \"auto detect\"\nide1:0.startConnected = \"FALSE\"\n"
    "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n"
    "ethernet0.networkName = \"VM Network\"\nethernet0.addressType = \"static\"\n"
    "ethernet0.address = \"00:50:56:00:00:01\"\n"
    "ethernet1.present = \"TRUE\"\nethernet1.virtualDev = \"e1000e\"\n"
    "ethernet1.connectionType = \"nat\"\nethernet1.addressType = \"generated\"\n"
    "ethernet1.generatedAddress = \"00:0c:29:11:22:33\"\n"
    "ethernet2.present = \"TRUE\"\nethernet2.virtualDev = \"e1000\"\n"
    "ethernet2.connectionType = \"bridged\"\nethernet2.addressType = \"generated\"\n"
    "ethernet2.startConnected = \"FALSE\"\n"
    "serial0.present = \"TRUE\"\nserial0.fileType = \"pipe\"\nserial0.fileName = \"com1\"\n"
    "serial0.pipe.endPoint = \"server\"\n"
    "serial1.present = \"TRUE\"\nserial1.fileType = \"file\"\nserial1.fileName = \"com2.log\"\n"
    "bios.bootOrder = \"cdrom,hdd,ethernet0\"\nbios.hddOrder = \"scsi1:3,scsi0:0\"\n"
    "usb.present = \"TRUE\"\nehci.present = \"TRUE\"\nusb_xhci.present = \"TRUE\"\n"
    "sound.present = \"TRUE\"\nsound.virtualDev = \"hdaudio\"\n"
    "svga.present = \"TRUE\"\nsvga.vramSize = \"8388608\"\nsvga.numDisplays = \"2\"\n"
    "RemoteDisplay.vnc.enabled = \"TRUE\"\nRemoteDisplay.vnc.port = \"5901\"\n"
    "vtpm.present = \"TRUE\"\ntools.syncTime = \"TRUE\"\nvmci0.present = \"TRUE\"\n";

static void from_vmx(const char *text, struct mull_appliance *a)
{
    struct mull_vmx vmx;
    struct mull_error err = {0};
    int ret = mull_vmx_parse("web.vmx", text, strlen(text), &vmx, &err);
    if (!ret)
        ret = mull_appliance_from_vmx(&vmx, "web.vmx", a, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    mull_vmx_free(&vmx);
}

/* What a writer is told of the files: the names they have in the package. */
struct files {
    struct mull_appliance_disk disk[MULL_CONFIG_DISKS], cdrom[MULL_CONFIG_CDROMS];
    char name[MULL_CONFIG_DISKS][24];
    struct mull_report report;
    struct mull_appliance_write w;
};

static void prepare(struct files *f, const struct mull_machine_config *c)
{
    memset(f, 0, sizeof(*f));
    for (unsigned i = 0; i < c->disk_count; i++) {
        snprintf(f->name[i], sizeof(f->name[i]), "disk%u.vmdk", i);
        f->disk[i] = (struct mull_appliance_disk){f->name[i], 1000, 1 << 20, 0, "vmdk"};
    }
    f->w = (struct mull_appliance_write){
        .config = c, .disk = f->disk, .cdrom = f->cdrom, .report = &f->report};
}

static char *to_vmx(const struct mull_machine_config *c, struct mull_report *report)
{
    struct files f;
    struct mull_vmx vmx;
    struct mull_error err = {0};
    char *text = NULL;
    size_t size;
    prepare(&f, c);
    assert_int_equal(mull_appliance_to_vmx(&f.w, &vmx, &err), 0);
    FILE *out = open_memstream(&text, &size);
    mull_vmx_write(&vmx, out);
    fclose(out);
    mull_vmx_free(&vmx);
    *report = f.report;
    return text;
}

static int by_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Two VMX files with the same lines, in any order. */
static void same_lines(const char *a, const char *b)
{
    char *copy[2] = {strdup(a), strdup(b)}, *line[2][200], *save;
    unsigned n[2] = {0, 0};
    for (unsigned i = 0; i < 2; i++) {
        for (char *p = strtok_r(copy[i], "\n", &save); p; p = strtok_r(NULL, "\n", &save))
            line[i][n[i]++] = p;
        qsort(line[i], n[i], sizeof(char *), by_line);
    }
    for (unsigned i = 0; i < n[0] || i < n[1]; i++)
        if (i >= n[0] || i >= n[1] || strcmp(line[0][i], line[1][i]))
            fail_msg("'%s' and '%s'", i < n[0] ? line[0][i] : "", i < n[1] ? line[1][i] : "");
    free(copy[0]);
    free(copy[1]);
}

static bool noted(const struct mull_report *r, enum mull_note_kind kind, const char *item,
                  const char *part)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->note[i].kind == kind && !strcmp(r->note[i].item, item) &&
            strstr(r->note[i].text, part))
            return true;
    return false;
}

static void test_vmx_read(void **state)
{
    struct mull_appliance a;
    from_vmx(vmx_text, &a);
    const struct mull_machine_config *c = &a.config;
    assert_string_equal(c->name, "Web-Server-1");
    assert_string_equal(c->annotation, "one\ntwo \"x\"");
    assert_string_equal(c->uuid, "564d1ca8-0011-2233-4455-66778899aabb");
    assert_string_equal(c->firmware, "uefi");
    assert_true(c->secure_boot && c->tpm);
    assert_int_equal(c->memory, 256 << 20);
    assert_int_equal(c->sockets * 10 + c->cores, 22);
    assert_int_equal(c->disk_count, 5);
    assert_int_equal(c->disk[0].bus, MULL_BUS_PVSCSI);
    assert_int_equal(c->disk[1].bus, MULL_BUS_SCSI);
    assert_string_equal(c->disk[1].adapter, "lsilogic");
    assert_int_equal(c->disk[1].controller * 100 + c->disk[1].unit, 103);
    assert_int_equal(c->disk[2].bus, MULL_BUS_SATA);
    assert_int_equal(c->disk[3].bus, MULL_BUS_NVME);
    assert_int_equal(c->disk[4].bus, MULL_BUS_IDE);
    assert_string_equal(a.disk[1].name, "disk1.vmdk");
    assert_int_equal(c->cdrom_count, 1);
    assert_int_equal(c->network_count, 3);
    assert_int_equal(c->network[0].model, MULL_NIC_VMXNET3);
    assert_string_equal(c->network[0].name, "VM Network");
    assert_int_equal(c->network[1].mac[5], 0x33);
    assert_int_equal(c->network[2].kind, MULL_NETWORK_NONE);
    assert_int_equal(c->console[0].kind, MULL_CONSOLE_UNIX);
    assert_int_equal(c->console[1].kind, MULL_CONSOLE_FILE);
    assert_int_equal(c->boot_count, 4);
    assert_int_equal(c->boot[1].index, 1);
    assert_string_equal(c->display_listen, "127.0.0.1:5901");
    assert_true(noted(&a.report, MULL_NOTE_KEPT, "VMX", "tools.syncTime"));
    mull_appliance_free(&a);
}

static void test_vmx_round_trip(void **state)
{
    struct mull_appliance a;
    struct mull_report report;
    from_vmx(vmx_text, &a);
    assert_true(a.config.vmware_tools); /* its guest is VMware's */
    char *text = to_vmx(&a.config, &report);
    same_lines(vmx_text, text);
    assert_int_equal(report.count, 0);
    mull_report_free(&report);
    mull_appliance_free(&a);
    free(text);
}

static void from_ovf(const char *text, struct mull_appliance *a)
{
    struct mull_ovf ovf;
    struct mull_error err = {0};
    int ret = mull_ovf_parse("web.ovf", text, strlen(text), NULL, &ovf, &err);
    if (!ret)
        ret = mull_appliance_from_ovf(&ovf, 0, a, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    mull_ovf_free(&ovf);
}

/* VMX -> machine -> OVF -> machine -> VMX keeps everything. */
static void test_vmx_through_ovf(void **state)
{
    struct mull_appliance a, b;
    struct mull_report report;
    struct mull_error err = {0};
    struct files f;
    char *ovf;
    from_vmx(vmx_text, &a);
    prepare(&f, &a.config);
    assert_int_equal(mull_appliance_to_ovf(&f.w, &ovf, &err), 0);
    assert_int_equal(f.report.count, 0);
    from_ovf(ovf, &b);
    assert_string_equal(b.disk[1].name, "disk1.vmdk");
    assert_int_equal(b.disk[1].capacity, 1 << 20);
    json_t *one = mull_machine_config_write(&a.config), *two = mull_machine_config_write(&b.config);
    if (!json_equal(one, two))
        fail_msg("%s\n%s", json_dumps(one, 0), json_dumps(two, 0));
    char *text = to_vmx(&b.config, &report);
    same_lines(vmx_text, text);
    json_decref(one);
    json_decref(two);
    mull_report_free(&report);
    mull_report_free(&f.report);
    mull_appliance_free(&a);
    mull_appliance_free(&b);
    free(ovf);
    free(text);
}

/* And through libvirt's XML, where VMware's own settings end. */
static void test_vmx_through_libvirt(void **state)
{
    struct mull_appliance a, b;
    struct mull_error err = {0};
    struct files f;
    char *xml;
    from_vmx(vmx_text, &a);
    prepare(&f, &a.config);
    assert_int_equal(mull_appliance_to_libvirt(&f.w, &xml, &err), 0);
    assert_true(noted(&f.report, MULL_NOTE_LOST, "extra.vmx", "6 settings") ||
                noted(&f.report, MULL_NOTE_LOST, "extra.vmx", "settings"));
    assert_true(noted(&f.report, MULL_NOTE_CHANGED, "disk 3", "nvme becomes virtio"));
    int ret = mull_appliance_from_libvirt("web.xml", xml, strlen(xml), &b, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    const struct mull_machine_config *c = &b.config;
    assert_string_equal(c->name, "Web-Server-1");
    assert_string_equal(c->annotation, "one\ntwo \"x\"");
    assert_string_equal(c->uuid, a.config.uuid);
    assert_string_equal(c->os, "debian12-64");
    assert_string_equal(c->firmware, "uefi");
    assert_true(c->secure_boot && c->tpm);
    assert_int_equal(c->memory, 256 << 20);
    assert_int_equal(c->sockets * 10 + c->cores, 22);
    assert_int_equal(c->disk_count, 5);
    assert_int_equal(c->disk[0].bus, MULL_BUS_PVSCSI);
    assert_int_equal(c->disk[1].bus, MULL_BUS_SCSI);
    assert_string_equal(c->disk[1].adapter, "lsilogic");
    assert_int_equal(c->disk[1].controller * 100 + c->disk[1].unit, 103);
    assert_string_equal(b.disk[1].name, "disk1.vmdk");
    assert_string_equal(b.disk[1].format, "vmdk");
    assert_int_equal(c->cdrom_count, 1);
    assert_int_equal(c->network[0].model, MULL_NIC_VMXNET3);
    assert_memory_equal(c->network[1].mac, a.config.network[1].mac, 6);
    assert_int_equal(c->network[2].kind, MULL_NETWORK_NONE);
    assert_int_equal(c->console[0].kind, MULL_CONSOLE_UNIX);
    assert_int_equal(c->console[1].kind, MULL_CONSOLE_FILE);
    assert_int_equal(c->display, MULL_DISPLAY_VNC);
    assert_string_equal(c->display_listen, "127.0.0.1:5901");
    assert_string_equal(c->usb, "3.0");
    assert_string_equal(c->video.model, "vmware");
    assert_int_equal(c->video.heads, 2);
    assert_int_equal(c->boot_count, 4);
    assert_int_equal(c->boot[1].device, MULL_BOOT_DISK);
    assert_int_equal(c->boot[1].index, 1);
    mull_report_free(&f.report);
    mull_appliance_free(&a);
    mull_appliance_free(&b);
    free(xml);
}

/* What VMware cannot say is reported, each item by itself. */
static void test_lost_is_said(void **state)
{
    static const char json[] =
        "{\"name\": \"m\", \"kernel\": \"/k\", \"no_reboot\": true, \"clock\": \"localtime\","
        " \"disks\": [{\"path\": \"/a\", \"serial\": \"s\", \"readonly\": true},"
        "  {\"path\": \"/b\", \"bus\": \"usb\"}],"
        " \"networks\": [{\"type\": \"user\", \"forward\": [\"tcp:1:2\"]}],"
        " \"consoles\": [{\"type\": \"stdio\"}, {\"type\": \"none\", \"device\": \"virtio\"}],"
        " \"display\": {\"type\": \"vnc\", \"listen\": \"unix:v\"}, \"video\": {\"model\": "
        "\"vga\"}}";
    struct mull_machine_config c;
    struct mull_report r;
    struct mull_error err = {0};
    assert_int_equal(mull_machine_config_read(json, &c, &err), 0);
    char *text = to_vmx(&c, &r);
    assert_true(noted(&r, MULL_NOTE_LOST, "kernel", "/k"));
    assert_true(noted(&r, MULL_NOTE_LOST, "no_reboot", ""));
    assert_true(noted(&r, MULL_NOTE_LOST, "clock", "localtime"));
    assert_true(noted(&r, MULL_NOTE_LOST, "disk 0", "serial"));
    assert_true(noted(&r, MULL_NOTE_LOST, "disk 0", "read-only"));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "disk 0", "virtio becomes pvscsi"));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "disk 1", "usb becomes pvscsi"));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "ethernet0", "virtio becomes vmxnet3"));
    assert_true(noted(&r, MULL_NOTE_LOST, "ethernet0", "forwardings"));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "serial0", "terminal"));
    assert_true(noted(&r, MULL_NOTE_LOST, "console", "virtio"));
    assert_true(noted(&r, MULL_NOTE_LOST, "display", "unix:v"));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "video", "vga"));
    mull_report_free(&r);
    mull_machine_config_free(&c);
    free(text);
}

static void test_places(void **state)
{
    /* Two of them want one place, and a SCSI controller can be of one kind only. */
    static const char json[] =
        "{\"disks\": [{\"path\": \"/a\", \"bus\": \"pvscsi\", \"controller\": 0, \"unit\": 0},"
        " {\"path\": \"/b\", \"bus\": \"scsi\", \"adapter\": \"lsilogic\", \"controller\": 0, "
        "\"unit\": 0},"
        " {\"path\": \"/c\", \"bus\": \"scsi\", \"adapter\": \"lsilogic\", \"controller\": 1, "
        "\"unit\": 7}]}";
    struct mull_machine_config c;
    struct mull_report r;
    struct mull_error err = {0};
    assert_int_equal(mull_machine_config_read(json, &c, &err), 0);
    char *text = to_vmx(&c, &r);
    assert_non_null(strstr(text, "scsi0:0.fileName = \"disk0.vmdk\""));
    assert_non_null(strstr(text, "scsi1:0.fileName = \"disk1.vmdk\""));
    assert_non_null(strstr(text, "scsi1:1.fileName = \"disk2.vmdk\""));
    assert_true(noted(&r, MULL_NOTE_CHANGED, "disk 1", "moves from 0:0 to scsi1:0"));
    mull_report_free(&r);
    mull_machine_config_free(&c);
    free(text);
}

/* ---- OVF: properties, licences, other writers' ways ---- */

static const char appliance_text[] =
    "<?xml version='1.0'?><Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/2' "
    "xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/2' xmlns:r='urn:rasd'>"
    "<References><File ovf:id='f1' ovf:href='d.vmdk'/></References>"
    "<DiskSection><Info/><Disk ovf:diskId='d1' ovf:fileRef='f1' ovf:capacity='1' "
    "ovf:capacityAllocationUnits='byte * 2^20'/><Disk ovf:diskId='d2' ovf:capacity='2097152'/>"
    "</DiskSection><NetworkSection><Network ovf:name='lan'/></NetworkSection>"
    "<VirtualSystem ovf:id='db'><Info/><Name>db 1</Name>"
    "<OperatingSystemSection ovf:id='96'><Info/></OperatingSystemSection>"
    "<ProductSection ovf:class='org.db' ovf:instance='1'><Info/><Product>DB</Product>"
    "<Vendor>V</Vendor><Category>Net</Category><Property ovf:key='ip' ovf:type='string' "
    "ovf:userConfigurable='true'><Label>Address</Label></Property>"
    "<Property ovf:key='port' ovf:type='uint16' ovf:value='5432' ovf:userConfigurable='true'/>"
    "<Property ovf:key='build' ovf:type='string' ovf:value='7'/></ProductSection>"
    "<EulaSection><Info/><License>Be good.</License></EulaSection>"
    "<VirtualHardwareSection ovf:transport='com.vmware.guestInfo'><Info/>"
    "<Item><r:InstanceID>1</r:InstanceID><r:ResourceType>3</r:ResourceType>"
    "<r:VirtualQuantity>2</r:VirtualQuantity></Item>"
    "<Item><r:InstanceID>2</r:InstanceID><r:ResourceType>4</r:ResourceType>"
    "<r:AllocationUnits>byte * "
    "2^30</r:AllocationUnits><r:VirtualQuantity>1</r:VirtualQuantity></Item>"
    "<Item><r:InstanceID>3</r:InstanceID><r:ResourceType>20</r:ResourceType>"
    "<r:ResourceSubType>AHCI</r:ResourceSubType></Item>"
    "<StorageItem><r:AddressOnParent>1</r:AddressOnParent><r:HostResource>/disk/d1</r:HostResource>"
    "<r:InstanceID>4</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType>"
    "</StorageItem>"
    "<StorageItem><r:HostResource>ovf:/disk/d2</r:HostResource><r:InstanceID>5</r:InstanceID>"
    "<r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></StorageItem>"
    "<EthernetPortItem><r:Address>080027A1B2C3</r:Address><r:Connection>lan</r:Connection>"
    "<r:InstanceID>6</r:InstanceID><r:ResourceSubType>E1000</r:ResourceSubType>"
    "<r:ResourceType>10</r:ResourceType></EthernetPortItem>"
    "<Item ovf:required='false'><r:InstanceID>7</r:InstanceID><r:ElementName>fd</r:ElementName>"
    "<r:ResourceType>14</r:ResourceType></Item>"
    "</VirtualHardwareSection></VirtualSystem></Envelope>";

/* Who has made it says whether its guest is VMware's. */
static void test_whose_guest(void **state)
{
    static const struct {
        const char *by, *hardware;
        bool tools;
    } made[] = {{"", "vmx-13", false},
                {"vmw:buildId='build-1'", "vmx-13", true},
                {"vmw:buildId='build-1'", "virtualbox-2.2", false}};
    for (unsigned i = 0; i < 3; i++) {
        struct mull_appliance a, b;
        struct mull_report report;
        char text[1024];
        snprintf(text, sizeof(text),
                 "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:vmw='urn:v' "
                 "xmlns:r='urn:rasd' %s><References/><VirtualSystem id='a'><Info/>"
                 "<VirtualHardwareSection><Info/><System><r:VirtualSystemType>%s"
                 "</r:VirtualSystemType></System><Item><r:InstanceID>1</r:InstanceID>"
                 "<r:ResourceType>3</r:ResourceType><r:VirtualQuantity>2</r:VirtualQuantity></Item>"
                 "</VirtualHardwareSection></VirtualSystem></Envelope>",
                 made[i].by, made[i].hardware);
        from_ovf(text, &a);
        assert_int_equal(a.config.vmware_tools, made[i].tools);
        char *vmx = to_vmx(&a.config, &report);
        assert_int_equal(strstr(vmx, "mullion.vmwareTools = \"FALSE\"") != NULL, !made[i].tools);
        from_vmx(vmx, &b); /* and stays so */
        assert_int_equal(b.config.vmware_tools, made[i].tools);
        mull_report_free(&report);
        mull_appliance_free(&a);
        mull_appliance_free(&b);
        free(vmx);
    }
}

static void test_appliance_properties(void **state)
{
    struct mull_appliance a;
    struct mull_error err = {0};
    char open[64];
    from_ovf(appliance_text, &a);
    assert_string_equal(a.config.name, "db-1");
    assert_string_equal(a.config.os, "debian10-64");
    assert_int_equal(a.config.cpus, 2);
    assert_int_equal(a.config.memory, 1 << 30);
    assert_int_equal(a.config.disk[0].bus, MULL_BUS_SATA);
    assert_int_equal(a.config.disk[0].unit, 1);
    assert_null(a.disk[1].name);
    assert_int_equal(a.disk[1].capacity, 2 << 20);
    assert_int_equal(a.config.network[0].model, MULL_NIC_E1000);
    assert_int_equal(a.config.network[0].mac[0], 8);
    assert_int_equal(a.config.network[0].mac[5], 0xc3);
    assert_true(noted(&a.report, MULL_NOTE_LOST, "fd", "type 14"));
    assert_int_equal(a.licence_count, 1);
    assert_string_equal(a.licence[0], "Be good.");
    mull_appliance_open_properties(&a, open, sizeof(open));
    assert_string_equal(open, "ip");
    assert_int_equal(mull_appliance_set_property(&a, "ip", "10.0.0.1", &err), 0);
    assert_int_equal(mull_appliance_set_property(&a, "org.db.port.1", "99", &err), 0);
    assert_int_equal(mull_appliance_set_property(&a, "port", "many", &err), -EINVAL);
    assert_int_equal(mull_appliance_set_property(&a, "build", "8", &err), -EPERM);
    assert_int_equal(mull_appliance_set_property(&a, "none", "8", &err), -ENOENT);
    char *env = mull_appliance_environment(&a.config);
    assert_non_null(strstr(env, "oe:key=\"org.db.ip.1\" oe:value=\"10.0.0.1\""));
    assert_non_null(strstr(env, "oe:key=\"org.db.port.1\" oe:value=\"99\""));
    free(env);
    /* And out again. */
    struct files f;
    struct mull_appliance b;
    char *ovf;
    prepare(&f, &a.config);
    assert_int_equal(mull_appliance_to_ovf(&f.w, &ovf, &err), 0);
    from_ovf(ovf, &b);
    assert_true(json_equal(a.config.appliance, b.config.appliance));
    assert_string_equal(b.licence[0], "Be good.");
    mull_report_free(&f.report);
    mull_appliance_free(&a);
    mull_appliance_free(&b);
    free(ovf);
}

/* ---- libvirt ---- */

static const char domain_text[] =
    "<domain type='kvm'><name>db</name><uuid>123e4567-e89b-12d3-a456-426614174000</uuid>"
    "<memory unit='GiB'>2</memory><vcpu placement='static'>2</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/><boot dev='network'/></os>"
    "<cpu mode='host-model'><feature policy='require' name='vmx'/></cpu>"
    "<clock offset='localtime'><timer name='hpet'/></clock><on_reboot>destroy</on_reboot>"
    "<devices><emulator>/usr/bin/kvm</emulator>"
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>"
    "<source file='db.qcow2'/><target dev='vda' bus='virtio'/><serial>S1</serial>"
    "<iotune><x/></iotune></disk>"
    "<disk type='file' device='cdrom'><source file='/isos/x.iso'/><target dev='sda' bus='sata'/>"
    "<readonly/></disk>"
    "<disk type='file' device='floppy'><target dev='fda'/></disk>"
    "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>"
    "<serial type='pty'><target port='0'/></serial><console type='pty'><target "
    "type='serial'/></console>"
    "<hostdev mode='subsystem' type='pci'/><filesystem type='mount'/>"
    "<graphics type='spice' autoport='yes'/><video><model type='qxl' vram='65536'/></video>"
    "<input type='tablet' bus='usb'/><memballoon model='virtio'/></devices></domain>";

static void test_libvirt_read(void **state)
{
    struct mull_appliance a;
    struct mull_error err = {0};
    int ret = mull_appliance_from_libvirt("db.xml", domain_text, strlen(domain_text), &a, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    const struct mull_machine_config *c = &a.config;
    assert_true(c->memory == UINT64_C(2) << 30);
    assert_true(c->localtime && c->no_reboot);
    assert_string_equal(c->firmware, "bios");
    assert_string_equal(c->disk[0].serial, "S1");
    assert_true(c->disk[0].direct);
    assert_string_equal(a.disk[0].format, "qcow2");
    assert_null(a.cdrom[0].name);
    assert_int_equal(c->console_count, 1);
    assert_int_equal(c->console[0].kind, MULL_CONSOLE_STDIO);
    assert_int_equal(c->boot_count, 2);
    assert_true(noted(&a.report, MULL_NOTE_LOST, "cdrom", "/isos/x.iso"));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "iotune", "of a disk"));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "disk", "floppy"));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "hostdev", ""));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "filesystem", ""));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "input", ""));
    assert_true(noted(&a.report, MULL_NOTE_LOST, "feature", ""));
    assert_true(noted(&a.report, MULL_NOTE_CHANGED, "interface", "br0"));
    assert_true(noted(&a.report, MULL_NOTE_CHANGED, "graphics", "VNC"));
    mull_appliance_free(&a);
}

static void test_libvirt_wrong(void **state)
{
    static const char *const wrong[][2] = {
        {"<network/>", "domain"},
        {"<domain><name>a</name></domain>", "memory"},
        {"<domain><memory unit='parsec'>1</memory></domain>", "memory"},
        {"<domain><memory>99999999999999999999</memory></domain>", "memory"},
        {"<domain><memory>65536</memory><vcpu>0</vcpu></domain>", "vcpu"},
        {"<domain><memory>65536</memory><os><type arch='s390x'>hvm</type></os></domain>", "s390x"},
        {"<domain><memory>65536</memory><devices><disk type='network'/></devices></domain>",
         "without a file"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct mull_appliance a;
        struct mull_error err = {0};
        int ret = mull_appliance_from_libvirt("x.xml", wrong[i][0], strlen(wrong[i][0]), &a, &err);
        mull_appliance_free(&a);
        if (ret >= 0 || !strstr(err.message, wrong[i][1]))
            fail_msg("%s: %d '%s'", wrong[i][0], ret, err.message);
    }
}

static void test_vmx_wrong(void **state)
{
    static const char *const wrong[][2] = {
        {"memsize = \"lots\"", "memsize"},
        {"memsize = \"0\"", "memsize"},
        {"numvcpus = \"0\"", "numvcpus"},
        {"scsi0:0.present = \"TRUE\"", "scsi0:0.fileName"},
        {"encryption.keySafe = \"vmware:key\"", "encrypted"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct mull_appliance a;
        struct mull_vmx vmx;
        struct mull_error err = {0};
        assert_int_equal(mull_vmx_parse("x", wrong[i][0], strlen(wrong[i][0]), &vmx, &err), 0);
        int ret = mull_appliance_from_vmx(&vmx, "x", &a, &err);
        mull_appliance_free(&a);
        mull_vmx_free(&vmx);
        if (ret >= 0 || !strstr(err.message, wrong[i][1]))
            fail_msg("%s: %d '%s'", wrong[i][0], ret, err.message);
    }
}

static void test_names(void **state)
{
    static const char *const names[][2] = {
        {"web-1", "web-1"},   {"My VM (2)", "My-VM-2"},   {"", "machine"}, {"...", "machine"},
        {"../../etc", "etc"}, {"\xc3\xa9t\xc3\xa9", "t"}, {"a/b", "a-b"}};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *name = mull_machine_name(names[i][0]);
        assert_string_equal(name, names[i][1]);
        free(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vmx_read),        cmocka_unit_test(test_vmx_round_trip),
        cmocka_unit_test(test_vmx_through_ovf), cmocka_unit_test(test_vmx_through_libvirt),
        cmocka_unit_test(test_lost_is_said),    cmocka_unit_test(test_places),
        cmocka_unit_test(test_whose_guest),     cmocka_unit_test(test_appliance_properties),
        cmocka_unit_test(test_libvirt_read),    cmocka_unit_test(test_libvirt_wrong),
        cmocka_unit_test(test_vmx_wrong),       cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
