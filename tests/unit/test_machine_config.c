/*
 * A machine's configuration: what a whole one becomes, defaults, and that each wrong one is refused
 * with a message that names the member.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "machine/config.h"

static void test_whole(void **state)
{
    struct mull_machine_config c;
    struct mull_error err = {0};
    int ret = mull_machine_config_parse(
        "{\"name\": \"web-1\", \"kernel\": \"/k\", \"initrd\": \"/i\", \"cmdline\": \"a b\","
        " \"memory\": 268435456, \"cpus\": 3, \"engine\": \"soft\", \"no_reboot\": true,"
        " \"code_cache\": 2097152,"
        " \"disks\": [{\"path\": \"/d,1\", \"format\": \"raw\", \"readonly\": true,"
        "   \"serial\": \"12345678901234567890\"}, {\"path\": \"/e\"}],"
        " \"networks\": [{\"type\": \"tap\", \"interface\": \"tap0\", \"mac\": "
        "\"02:00:00:00:ab:CD\"},"
        "   {\"type\": \"user\", \"forward\": [\"tcp:2222:22\"]}],"
        " \"consoles\": [{\"type\": \"fd\", \"in\": 5, \"out\": 6},"
        "   {\"type\": \"unix\", \"path\": \"/s\", \"device\": \"virtio\"}]}",
        &c, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    assert_string_equal(c.name, "web-1");
    assert_string_equal(c.kernel, "/k");
    assert_string_equal(c.initrd, "/i");
    assert_string_equal(c.cmdline, "a b");
    assert_int_equal(c.memory, 256 << 20);
    assert_int_equal(c.cpus, 3);
    assert_string_equal(c.engine, "soft");
    assert_true(c.no_reboot);
    assert_int_equal(c.code_cache, 2 << 20);
    assert_int_equal(c.disk_count, 2);
    assert_string_equal(c.disk[0].path, "/d,1");
    assert_true(c.disk[0].readonly);
    assert_string_equal(c.disk[0].serial, "12345678901234567890");
    assert_false(c.disk[1].readonly);
    assert_null(c.disk[1].format);
    assert_int_equal(c.network[0].kind, MULL_NETWORK_TAP);
    assert_int_equal(c.network[0].mac[5], 0xcd);
    assert_false(c.network[1].has_mac);
    assert_string_equal(c.network[1].forward[0], "tcp:2222:22");
    assert_int_equal(c.console[0].kind, MULL_CONSOLE_FD);
    assert_int_equal(c.console[0].out_fd, 6);
    assert_int_equal(c.console[1].device, MULL_CONSOLE_VIRTIO);
    mull_machine_config_free(&c);
}

static void test_defaults(void **state)
{
    struct mull_machine_config c;
    assert_int_equal(mull_machine_config_parse("{\"kernel\": \"k\"}", &c, NULL), 0);
    assert_int_equal(c.memory, MULL_MEMORY_DEFAULT);
    assert_int_equal(c.cpus, 1);
    assert_string_equal(c.engine, "auto");
    assert_false(c.no_reboot);
    assert_int_equal(c.code_cache, 0);
    assert_int_equal(c.disk_count + c.network_count + c.console_count, 0);
    mull_machine_config_free(&c);
}

static void test_refused(void **state)
{
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"", "line 1"},
        {"[]", "must be an object"},
        {"{\"kernel\": \"k\"", "line 1"},
        {"{}", "--kernel"},
        {"{\"kernel\": \"\"}", "--kernel"},
        {"{\"kernel\": 1}", "kernel: must be a string"},
        {"{\"kernel\": \"a\\u0000b\"}", "line 1"},
        {"{\"kernel\": \"k\", \"colour\": 1}", "colour: no such member"},
        {"{\"kernel\": \"k\", \"kernel\": \"l\"}", "duplicate"},
        {"{\"kernel\": \"k\", \"name\": \"a/b\"}", "--name"},
        {"{\"kernel\": \"k\", \"memory\": 0}", "--memory"},
        {"{\"kernel\": \"k\", \"memory\": 1048576}", "--memory"},
        {"{\"kernel\": \"k\", \"memory\": 33554433}", "pages"},
        {"{\"kernel\": \"k\", \"memory\": 1152921504606846976}", "--memory"},
        {"{\"kernel\": \"k\", \"memory\": 1099511627776}", "more than the host has"},
        {"{\"kernel\": \"k\", \"memory\": -1}", "memory"},
        {"{\"kernel\": \"k\", \"memory\": 1.5}", "memory"},
        {"{\"kernel\": \"k\", \"cpus\": 0}", "--cpus"},
        {"{\"kernel\": \"k\", \"cpus\": 65}", "--cpus"},
        {"{\"kernel\": \"k\", \"disks\": {}}", "disks: must be a list"},
        {"{\"kernel\": \"k\", \"disks\": [{}]}", "disks[0].path: is missing"},
        {"{\"kernel\": \"k\", \"disks\": [1]}", "disks[0]"},
        {"{\"kernel\": \"k\", \"disks\": [{\"path\": \"p\", \"readonly\": 1}]}", "readonly"},
        {"{\"kernel\": \"k\", \"disks\": [{\"path\": \"p\", \"serial\": "
         "\"123456789012345678901\"}]}",
         "20 characters"},
        {"{\"kernel\": \"k\", \"networks\": [{\"type\": \"wifi\"}]}", "networks[0].type"},
        {"{\"kernel\": \"k\", \"networks\": [{\"type\": \"tap\"}]}", "interface"},
        {"{\"kernel\": \"k\", \"networks\": [{\"type\": \"user\", \"mac\": "
         "\"03:00:00:00:00:00\"}]}",
         "mac"},
        {"{\"kernel\": \"k\", \"networks\": [{\"type\": \"user\", \"forward\": [1]}]}", "forward"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"unix\"}]}", "consoles[0].path"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"fd\", \"device\": \"x\"}]}", "device"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"none\"}, {\"type\": \"none\"},"
         " {\"type\": \"none\"}]}",
         "serial ports"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"stdio\"}]}", "stdio"},
        {"{\"kernel\": \"k\", \"disks\": [{\"path\": \"p\", \"bus\": \"mfm\"}]}",
         "disks[0].bus: must be one"},
        {"{\"kernel\": \"k\", \"disks\": [{\"path\": \"p\", \"adapter\": \"x\"}]}", "adapter"},
        {"{\"kernel\": \"k\", \"disks\": [{\"path\": \"p\", \"unit\": -1}]}", "unit"},
        {"{\"kernel\": \"k\", \"vsock\": {}}", "vsock.path: is missing"},
        {"{\"kernel\": \"k\", \"vsock\": {\"path\": \"v\", \"cid\": 2}}", "vsock.cid"},
        {"{\"kernel\": \"k\", \"vsock\": {\"path\": \"v\", \"cid\": 4294967295}}", "vsock.cid"},
        {"{\"kernel\": \"k\", \"uuid\": \"1\"}", "uuid"},
        {"{\"kernel\": \"k\", \"boot\": {\"order\": [\"tape\"]}}", "boot.order"},
        {"{\"kernel\": \"k\", \"boot\": {\"order\": [1]}}", "boot.order"},
        {"{\"kernel\": \"k\", \"boot\": []}", "boot"},
        {"{\"kernel\": \"k\", \"topology\": {\"cores\": 2}}", "topology"},
        {"{\"kernel\": \"k\", \"video\": {}}", "video.model"},
        {"{\"kernel\": \"k\", \"display\": {\"type\": \"tv\"}}", "display.type"},
        {"{\"kernel\": \"k\", \"usb\": \"4\"}", "usb"},
        {"{\"kernel\": \"k\", \"extra\": 1}", "extra"},
        {"{\"kernel\": \"k\", \"networks\": [{\"type\": \"user\", \"model\": \"ne2000\"}]}",
         "networks[0].model"},
        {"{\"kernel\": \"k\", \"consoles\": [{}, {}, {}, {}, {}, {}, {}, {}, {}]}", "at most 8"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"none\", \"device\": \"channel\"}]}",
         "consoles[0].name"},
        {"{\"kernel\": \"k\", \"consoles\": [{\"type\": \"none\", \"name\": \"a\"}]}", "channel"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mull_machine_config c;
        struct mull_error err = {0};
        int ret = mull_machine_config_parse(cases[i].json, &c, &err);
        mull_machine_config_free(&c);
        if (ret >= 0 || !strstr(err.message, cases[i].part))
            fail_msg("%s: %d '%s' lacks '%s'", cases[i].json, ret, err.message, cases[i].part);
        assert_int_equal(ret, -err.code);
    }
}

/* Everything a description can say, as mull_machine_config_write() puts it. */
static const char full[] =
    "{\"name\": \"vm\", \"uuid\": \"123e4567-e89b-12d3-a456-426614174000\", \"annotation\": "
    "\"a\\nb\","
    " \"os\": \"debian12-64\", \"firmware\": \"uefi\", \"nvram\": \"vars.fd\", \"secure_boot\": "
    "true,"
    " \"kernel\": \"k\", \"initrd\": \"i\", \"cmdline\": \"c\", \"memory\": 536870912, \"cpus\": 8,"
    " \"topology\": {\"sockets\": 2, \"cores\": 2, \"threads\": 2}, \"engine\": \"soft\","
    " \"no_reboot\": true, \"clock\": \"localtime\","
    " \"boot\": {\"order\": [\"cdrom\", \"disk:1\", \"network:0\", \"floppy\"], \"menu\": true},"
    " \"disks\": [{\"path\": \"d\", \"format\": \"vmdk\", \"readonly\": true, \"direct\": true,"
    "   \"serial\": \"s\", \"bus\": \"scsi\", \"adapter\": \"lsilogic\", \"controller\": 0, "
    "\"unit\": 15},"
    "  {\"path\": \"e\", \"bus\": \"pvscsi\"}],"
    " \"cdroms\": [{\"bus\": \"ide\", \"controller\": 1, \"unit\": 0}, {\"path\": \"x.iso\", "
    "\"bus\": \"sata\"}],"
    " \"networks\": [{\"type\": \"tap\", \"interface\": \"t\", \"model\": \"vmxnet3\", \"name\": "
    "\"VM Network\","
    "   \"mac\": \"00:50:56:00:00:01\"}, {\"type\": \"none\", \"model\": \"e1000\"},"
    "  {\"type\": \"user\", \"forward\": [\"tcp:1:2\"]}],"
    " \"consoles\": [{\"type\": \"file\", \"path\": \"f\"}, {\"type\": \"tcp\", \"path\": \":1\"},"
    " {\"type\": \"none\", \"device\": \"channel\", \"name\": \"org.qemu.guest_agent.0\"},"
    "  {\"type\": \"unix\", \"device\": \"virtio\", \"path\": \"s\"}],"
    " \"display\": {\"type\": \"vnc\", \"listen\": \"unix:v\"},"
    " \"video\": {\"model\": \"vmware\", \"memory\": 4194304, \"heads\": 2}, \"tpm\": true, "
    "\"usb\": \"3.0\","
    " \"vsock\": {\"cid\": 7, \"path\": \"v\"},"
    " \"sound\": \"hda\", \"appliance\": {\"product\": {\"name\": \"p\"}}, \"extra\": {\"vmx\": "
    "{\"a\": \"b\"}}}";

static void test_written_again(void **state)
{
    struct mull_machine_config c;
    struct mull_error err = {0};
    mull_machine_config_read(full, &c, &err);
    assert_string_equal(err.message, "");
    json_t *wrote = mull_machine_config_write(&c);
    json_t *meant = json_loads(full, 0, NULL);
    if (!json_equal(wrote, meant))
        fail_msg("%s", json_dumps(wrote, 0));
    json_decref(wrote);
    json_decref(meant);
    mull_machine_config_free(&c);
}

static void test_missing(void **state)
{
    struct mull_machine_config c;
    char text[2048];
    assert_int_equal(mull_machine_config_parse("{\"kernel\": \"k\"}", &c, NULL), 0);
    assert_false(mull_machine_config_missing(&c, text, sizeof(text)));
    mull_machine_config_free(&c);
    assert_int_equal(mull_machine_config_read(full, &c, NULL), 0);
    assert_true(mull_machine_config_missing(&c, text, sizeof(text)));
    assert_non_null(strstr(text, "no sound"));
    char small[16];
    assert_true(mull_machine_config_missing(&c, small, sizeof(small)));
    assert_true(strlen(small) < sizeof(small));
    mull_machine_config_free(&c);
}

static void test_names(void **state)
{
    char uuid[37];
    struct mull_boot_entry entry;
    assert_int_equal(mull_uuid_parse("{123E4567-e89b-12d3-a456-426614174000}", uuid), 0);
    assert_string_equal(uuid, "123e4567-e89b-12d3-a456-426614174000");
    assert_int_equal(mull_uuid_parse("123e4567-e89b-12d3-a456-42661417400", uuid), -EINVAL);
    assert_int_equal(mull_uuid_parse("123e4567ae89b-12d3-a456-426614174000", uuid), -EINVAL);
    assert_int_equal(mull_boot_entry_parse("cdrom:12", &entry), 0);
    assert_int_equal(entry.device, MULL_BOOT_CDROM);
    assert_int_equal(entry.index, 12);
    static const char *const wrong[] = {"", "tape", "disk:", "disk:-1", "disk:1x", "disks"};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(mull_boot_entry_parse(wrong[i], &entry), -EINVAL);
}

static void test_mac(void **state)
{
    uint8_t mac[6];
    assert_int_equal(mull_mac_parse("02:00:00:00:00:7f", mac), 0);
    assert_int_equal(mac[5], 0x7f);
    static const char *const wrong[] = {"",
                                        "02:00:00:00:00",
                                        "02:00:00:00:00:0",
                                        "02:00:00:00:00:0g",
                                        "01:00:00:00:00:00",
                                        "02:00:00:00:00:00:",
                                        "02-00-00-00-00-00",
                                        " 2:00:00:00:00:00x"};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(mull_mac_parse(wrong[i], mac), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),   cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_written_again),
        cmocka_unit_test(test_missing), cmocka_unit_test(test_names),
        cmocka_unit_test(test_mac),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
