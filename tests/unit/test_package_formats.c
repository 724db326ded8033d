/*
 * The formats of packages by themselves: XML from strangers, tar archives, manifests, VMX
 * dictionaries, OVF descriptors. Each hostile one is refused with words that say why.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/xml.h"
#include "image/ovf/manifest.h"
#include "image/ovf/ovf.h"
#include "image/ovf/tar.h"
#include "image/ovf/vmx.h"

static void expect_error(int ret, const struct mull_error *err, const char *part)
{
    if (ret >= 0 || ret != -err->code || !strstr(err->message, part))
        fail_msg("%d '%s' lacks '%s'", ret, err->message, part);
}

/* ---- XML ---- */

static void test_xml_tree(void **state)
{
    static const char text[] = "<a xmlns='urn:x' xmlns:y='urn:y' k='1'>  one &lt;<b y:k='2'/>"
                               "<y:c>&#65;</y:c><b>x</b> </a>";
    struct mull_xml_document *doc;
    struct mull_error err = {0};
    assert_int_equal(mull_xml_parse("t", text, strlen(text), &doc, &err), 0);
    const struct mull_xml *a = mull_xml_root(doc), *b = mull_xml_child(a, "b");
    assert_string_equal(a->space, "urn:x");
    assert_string_equal(a->text, "one <");
    assert_string_equal(mull_xml_attribute(a, "k"), "1");
    assert_string_equal(mull_xml_attribute(b, "k"), "2");
    assert_string_equal(b->attribute[0].space, "urn:y");
    assert_string_equal(mull_xml_child_text(a, "c"), "A");
    assert_string_equal(mull_xml_again(b)->text, "x");
    assert_null(mull_xml_again(mull_xml_again(b)));
    assert_null(mull_xml_child(a, "d"));
    mull_xml_free(doc);
}

static int parse_xml(const char *text, size_t length, struct mull_error *err)
{
    struct mull_xml_document *doc;
    *err = (struct mull_error){0};
    int ret = mull_xml_parse("t", text, length, &doc, err);
    mull_xml_free(ret ? NULL : doc);
    return ret;
}

static void test_xml_hostile(void **state)
{
    struct mull_error err;
    static const char bomb[] = "<!DOCTYPE a [<!ENTITY x 'xxxxxxxxxx'><!ENTITY y '&x;&x;&x;&x;'>]>"
                               "<a>&y;</a>";
    static const char external[] = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>";
    expect_error(parse_xml(bomb, strlen(bomb), &err), &err, "document type");
    expect_error(parse_xml(external, strlen(external), &err), &err, "document type");
    expect_error(parse_xml("<a>&b;</a>", 10, &err), &err, "line 1");
    expect_error(parse_xml("", 0, &err), &err, "t: line 1");
    expect_error(parse_xml("<a><b></a>", 10, &err), &err, "mismatched tag");
    /* As deep as a file may be long. */
    size_t depth = MULL_XML_BYTES_MAX / 3;
    char *deep = malloc(depth * 3);
    assert_non_null(deep);
    for (size_t i = 0; i < depth; i++)
        memcpy(deep + 3 * i, "<a>", 3);
    expect_error(parse_xml(deep, depth * 3, &err), &err, "nested too deeply");
    expect_error(parse_xml(deep, MULL_XML_BYTES_MAX + 1, &err), &err, "16 MiB");
    /* As wide. */
    memcpy(deep, "<r>", 3);
    for (size_t i = 4; i + 4 < depth * 3; i += 4)
        memcpy(deep + i, "<a/>", 4);
    deep[3] = ' ';
    expect_error(parse_xml(deep, depth * 3 / 4 * 4, &err), &err, "too many elements");
    free(deep);
    char *many = malloc(8192);
    int n = sprintf(many, "<a");
    for (int i = 0; i < 100; i++)
        n += sprintf(many + n, " a%d='1'", i);
    n += sprintf(many + n, "/>");
    expect_error(parse_xml(many, (size_t)n, &err), &err, "too many attributes");
    free(many);
}

static void test_xml_written(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct mull_xml_writer w;
    mull_xml_begin(&w, out);
    mull_xml_start(&w, "a");
    mull_xml_put(&w, "k", "<\"&\n\x01\xff\xc3\xa9");
    mull_xml_element(&w, "b", "x > y & z");
    mull_xml_element(&w, "c", NULL);
    mull_xml_element_number(&w, "d", 7);
    mull_xml_end(&w, "a");
    fclose(out);
    struct mull_xml_document *doc;
    struct mull_error err = {0};
    assert_int_equal(mull_xml_parse("t", text, size, &doc, &err), 0);
    assert_string_equal(mull_xml_attribute(mull_xml_root(doc), "k"), "<\"&\n??\xc3\xa9");
    assert_string_equal(mull_xml_child_text(mull_xml_root(doc), "b"), "x > y & z");
    assert_null(mull_xml_child(mull_xml_root(doc), "c"));
    assert_string_equal(mull_xml_child_text(mull_xml_root(doc), "d"), "7");
    mull_xml_free(doc);
    free(text);
}

/* ---- Tar ---- */

struct archive {
    FILE *file;
    int fd;
};

static void begin(struct archive *a)
{
    a->file = tmpfile();
    assert_non_null(a->file);
    a->fd = fileno(a->file);
}

/* A header as given, with a right checksum; data follows. */
static void put_raw(struct archive *a, const char *name, char type, const char *size,
                    const char *data, size_t length)
{
    char h[512] = {0}, pad[512] = {0};
    strncpy(h, name, 100);
    memcpy(h + 124, size, strlen(size));
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += (uint8_t)h[i];
    snprintf(h + 148, 7, "%06o", sum);
    assert_int_equal(write(a->fd, h, 512), 512);
    if (!length)
        return;
    assert_int_equal(write(a->fd, data, length), length);
    assert_int_equal(write(a->fd, pad, (512 - length % 512) % 512), (512 - length % 512) % 512);
}

static int try(struct archive *a, struct mull_error *err)
{
    struct mull_tar tar;
    *err = (struct mull_error){0};
    int ret = mull_tar_open(a->fd, "t.ova", &tar, err);
    if (!ret)
        mull_tar_close(&tar);
    fclose(a->file);
    return ret;
}

static void test_tar_written_and_read(void **state)
{
    struct archive a;
    struct mull_tar tar;
    struct mull_error err = {0};
    char long_name[301];
    memset(long_name, 'n', 300);
    long_name[300] = '\0';
    begin(&a);
    assert_int_equal(mull_tar_put_header(a.fd, "m.ovf", 5, 1000), 0);
    assert_int_equal(write(a.fd, "hello", 5), 5);
    assert_int_equal(mull_tar_pad(a.fd, 5), 0);
    assert_int_equal(mull_tar_put_header(a.fd, long_name, 0, 1000), 0);
    /* More than octal digits can say: only the header, the data is a hole. */
    uint64_t huge = UINT64_C(9) << 30;
    assert_int_equal(mull_tar_put_header(a.fd, "huge.vmdk", huge, 1000), 0);
    off_t at = lseek(a.fd, 0, SEEK_CUR);
    assert_int_equal(ftruncate(a.fd, at + (off_t)huge), 0);
    lseek(a.fd, 0, SEEK_END);
    assert_int_equal(mull_tar_finish(a.fd), 0);
    assert_int_equal(mull_tar_put_header(a.fd, "../x", 0, 0), -EINVAL);
    assert_int_equal(mull_tar_open(a.fd, "t.ova", &tar, &err), 0);
    assert_int_equal(tar.count, 3);
    assert_int_equal(mull_tar_find(&tar, "m.ovf")->offset, 512);
    assert_int_equal(mull_tar_find(&tar, "m.ovf")->size, 5);
    assert_non_null(mull_tar_find(&tar, long_name));
    assert_true(mull_tar_find(&tar, "huge.vmdk")->size == huge);
    assert_true(mull_tar_find(&tar, "huge.vmdk")->offset == (uint64_t)at);
    assert_null(mull_tar_find(&tar, "other"));
    mull_tar_close(&tar);
    fclose(a.file);
}

static void test_tar_hostile(void **state)
{
    static const struct {
        const char *name;
        char type;
        const char *size, *part;
    } cases[] = {
        {"../up", '0', "0", "outside"},
        {"a/../../up", '0', "0", "outside"},
        {"/etc/passwd", '0', "0", "outside"},
        {"a//b", '0', "0", "outside"},
        {"a\\b", '0', "0", "outside"},
        {"", '0', "0", "outside"},
        {"link", '2', "0", "is a link"},
        {"hard", '1', "0", "is a link"},
        {"null", '3', "0", "not a file"},
        {"fifo", '6', "0", "not a file"},
        {"sparse", 'S', "0", "not a file"},
        {"big", '0', "77777777777", "larger than the archive"},
        {"big", '0', "\x80\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f", "no number"},
        {"big", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "no number"},
        {"text", '0', "12x4", "no number"},
        {"pax", 'x', "100", "larger than the archive"},
    };
    struct mull_error err;
    struct archive a;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(&a);
        put_raw(&a, cases[i].name, cases[i].type, cases[i].size, NULL, 0);
        expect_error(try(&a, &err), &err, cases[i].part);
    }
    static const char *const records[] = {"5 path\n",
                                          "99 path=x\n",
                                          "x",
                                          "20 path=../../../..\n",
                                          "12 size=-1\n\n",
                                          "28 GNU.sparse.major=1234567\n",
                                          "30 size=99999999999999999999\n\n"};
    for (unsigned i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        char size[24];
        begin(&a);
        snprintf(size, sizeof(size), "%zo", strlen(records[i]));
        put_raw(&a, "pax", 'x', size, records[i], strlen(records[i]));
        put_raw(&a, "file", '0', "0", NULL, 0);
        assert_true(try(&a, &err) < 0);
        assert_true(*err.message);
    }
    begin(&a);
    for (unsigned i = 0; i < 20; i++)
        put_raw(&a, "pax", 'g', "0", NULL, 0);
    expect_error(try(&a, &err), &err, "without a member");
    begin(&a);
    put_raw(&a, "twice", '0', "0", NULL, 0);
    put_raw(&a, "./twice", '0', "0", NULL, 0);
    expect_error(try(&a, &err), &err, "two members");
    begin(&a);
    assert_int_equal(write(a.fd, "not a tar archive", 17), 17);
    expect_error(try(&a, &err), &err, "no tar archive");
    begin(&a);
    char junk[512];
    memset(junk, 'j', 512);
    assert_int_equal(write(a.fd, junk, 512), 512);
    expect_error(try(&a, &err), &err, "no tar header");
}

/* ---- Manifests ---- */

#define DIGEST_OF_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void test_manifest(void **state)
{
    static const char text[] = "SHA256(a b.ovf)= " DIGEST_OF_ABC "\r\n"
                               "SHA1 (x(1).vmdk) = a9993e364706816aba3e25717850c26c9cd0d89d\n\n";
    struct mull_manifest m;
    struct mull_error err = {0};
    assert_int_equal(mull_manifest_parse("t.mf", text, strlen(text), &m, &err), 0);
    assert_int_equal(m.count, 2);
    assert_int_equal(mull_manifest_find(&m, "x(1).vmdk")->digest, MULL_SHA1);
    struct mull_hasher *h;
    uint8_t digest[MULL_DIGEST_MAX];
    assert_int_equal(mull_hasher_create(MULL_SHA256, &h, &err), 0);
    mull_hasher_update(h, "a", 1);
    mull_hasher_update(h, "bc", 2);
    mull_hasher_finish(h, digest);
    assert_memory_equal(digest, mull_manifest_find(&m, "a b.ovf")->value, 32);
    assert_null(mull_manifest_find(&m, "other"));
    mull_manifest_free(&m);
    static const char *const wrong[][2] = {
        {"", "empty"},
        {"MD5(a)= 00", "line 1"},
        {"SHA256(a)= 00", "digest of 'a'"},
        {"SHA256(a)= " DIGEST_OF_ABC "00", "digest of 'a'"},
        {"SHA256(a)= zz7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "digest"},
        {"SHA256()= " DIGEST_OF_ABC, "line 1"},
        {"SHA256(a " DIGEST_OF_ABC, "line 1"},
        {"\nSHA256(a)", "line 2"},
        {"SHA256(a)= " DIGEST_OF_ABC "\nSHA256(a)= " DIGEST_OF_ABC, "twice"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err = (struct mull_error){0};
        expect_error(mull_manifest_parse("t.mf", wrong[i][0], strlen(wrong[i][0]), &m, &err), &err,
                     wrong[i][1]);
    }
}

static void test_certificate_nonsense(void **state)
{
    struct mull_signer signer;
    struct mull_error err = {0};
    static const char *const wrong[] = {"", "SHA256(x.mf)= zz\n", "SHA256(y.mf)= 00\n",
                                        "SHA256(x.mf)= 00\n",
                                        "SHA256(x.mf)= 00\n-----BEGIN CERTIFICATE-----\nAAAA\n"
                                        "-----END CERTIFICATE-----\n"};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err = (struct mull_error){0};
        assert_int_equal(mull_manifest_verify("x.cert", wrong[i], strlen(wrong[i]), "x.mf", "m", 1,
                                              NULL, &signer, &err),
                         -EKEYREJECTED);
        assert_true(*err.message);
    }
}

/* ---- VMX ---- */

static void test_vmx(void **state)
{
    static const char text[] = "#!/usr/bin/vmware\n.encoding = \"windows-1252\"\r\n"
                               "displayName = \"caf\xe9 |22x|22|0Aend\"\n memsize=\"64\" # MiB\n"
                               "numvcpus = 2\nempty = \"\"\n";
    struct mull_vmx v;
    struct mull_error err = {0};
    assert_int_equal(mull_vmx_parse("t.vmx", text, strlen(text), &v, &err), 0);
    assert_string_equal(mull_vmx_get(&v, "DISPLAYNAME"), "caf\xc3\xa9 \"x\"\nend");
    assert_string_equal(mull_vmx_get(&v, "memSize"), "64");
    assert_string_equal(mull_vmx_getf(&v, "num%s", "vcpus"), "2");
    assert_string_equal(mull_vmx_get(&v, "empty"), "");
    assert_string_equal(mull_vmx_get(&v, ".encoding"), "UTF-8");
    assert_null(mull_vmx_get(&v, "none"));
    assert_int_equal(mull_vmx_set(&v, "NUMVCPUS", "4"), 0);
    char *again = NULL;
    size_t size;
    FILE *out = open_memstream(&again, &size);
    mull_vmx_write(&v, out);
    fclose(out);
    struct mull_vmx w;
    assert_int_equal(mull_vmx_parse("t.vmx", again, size, &w, &err), 0);
    assert_int_equal(w.count, v.count);
    assert_string_equal(mull_vmx_get(&w, "displayName"), "caf\xc3\xa9 \"x\"\nend");
    assert_string_equal(mull_vmx_get(&w, "numvcpus"), "4");
    mull_vmx_free(&v);
    mull_vmx_free(&w);
    free(again);
    static const char *const wrong[][2] = {
        {"", "empty"},
        {"a", "line 1"},
        {"a = \"b", "quotation"},
        {"= \"b\"", "line 1"},
        {"a = \"1\"\nA = \"2\"", "twice"},
        {".encoding = \"klingon\"\na = \"b\"", "klingon"},
        {".encoding = \"US-ASCII\"\na = \"\xff\"", "not text"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err = (struct mull_error){0};
        expect_error(mull_vmx_parse("t.vmx", wrong[i][0], strlen(wrong[i][0]), &v, &err), &err,
                     wrong[i][1]);
    }
    err = (struct mull_error){0};
    expect_error(mull_vmx_parse("t.vmx", "a\0b", 3, &v, &err), &err, "zero bytes");
}

/* ---- OVF ---- */

#define ENVELOPE                                                                                   \
    "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' "                                    \
    "xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' xmlns:rasd='urn:rasd'>"
#define SYSTEM(items)                                                                              \
    "<VirtualSystem ovf:id='vm'><Info/><VirtualHardwareSection><Info/>" items                      \
    "</VirtualHardwareSection></VirtualSystem></Envelope>"
#define ITEM(id, type, rest)                                                                       \
    "<Item><rasd:InstanceID>" id "</rasd:InstanceID><rasd:ResourceType>" type                      \
    "</rasd:ResourceType>" rest "</Item>"

static int parse_ovf(const char *text, const char *configuration, struct mull_ovf *out,
                     struct mull_error *err)
{
    *err = (struct mull_error){0};
    return mull_ovf_parse("t.ovf", text, strlen(text), configuration, out, err);
}

static void test_ovf(void **state)
{
    static const char text[] = ENVELOPE
        "<References><File ovf:id='f' ovf:href='d.vmdk' ovf:size='10' ovf:compression='gzip' "
        "ovf:chunkSize='4'/></References>"
        "<DiskSection><Disk ovf:diskId='d' ovf:fileRef='f' ovf:capacity='8' "
        "ovf:capacityAllocationUnits='byte * 2^30' ovf:format='urn:vmdk'/></DiskSection>"
        "<DeploymentOptionSection><Configuration ovf:id='small'/>"
        "<Configuration ovf:id='large' ovf:default='true'/></DeploymentOptionSection>" SYSTEM(ITEM(
            "1", "3",
            "<rasd:VirtualQuantity>1</rasd:VirtualQuantity>") "<Item ovf:configuration='large "
                                                              "huge'><rasd:InstanceID>1</"
                                                              "rasd:InstanceID>"
                                                              "<rasd:ResourceType>3</"
                                                              "rasd:ResourceType>"
                                                              "<rasd:VirtualQuantity>4</"
                                                              "rasd:VirtualQuantity></Item>"
                                                              "<Item "
                                                              "ovf:bound='max'><rasd:InstanceID>1</"
                                                              "rasd:InstanceID>"
                                                              "<rasd:ResourceType>3</"
                                                              "rasd:ResourceType>"
                                                              "<rasd:VirtualQuantity>64</"
                                                              "rasd:VirtualQuantity></Item>" ITEM(
                                                                  "2", "4",
                                                                  "<rasd:AllocationUnits>MegaBytes<"
                                                                  "/rasd:AllocationUnits>"
                                                                  "<rasd:VirtualQuantity>512</"
                                                                  "rasd:VirtualQuantity>"));
    struct mull_ovf ovf;
    struct mull_error err;
    int ret = parse_ovf(text, NULL, &ovf, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(ret, 0);
    assert_true(ovf.file[0].gzip);
    assert_int_equal(ovf.file[0].chunk, 4);
    assert_true(ovf.disk[0].capacity == UINT64_C(8) << 30);
    assert_int_equal(ovf.system_count, 1);
    assert_int_equal(ovf.system[0].item_count, 2);
    assert_int_equal(ovf.system[0].item[0].quantity, 4);
    assert_int_equal(ovf.system[0].item[1].quantity, 512 << 20);
    mull_ovf_free(&ovf);
    assert_int_equal(parse_ovf(text, "small", &ovf, &err), 0);
    assert_int_equal(ovf.system[0].item[0].quantity, 1);
    mull_ovf_free(&ovf);
    expect_error(parse_ovf(text, "tiny", &ovf, &err), &err, "deployment option 'tiny'");
}

static void test_ovf_wrong(void **state)
{
    static const char *const wrong[][2] = {
        {"<domain/>", "Envelope"},
        {ENVELOPE "</Envelope>", "no virtual system"},
        {ENVELOPE "<References><File ovf:id='f'/></References>" SYSTEM(""), "href"},
        {ENVELOPE "<References><File ovf:id='f' ovf:href='a'/><File ovf:id='f' ovf:href='b'/>"
                  "</References>" SYSTEM(""),
         "two files"},
        {ENVELOPE
         "<References><File ovf:id='f' ovf:href='a' ovf:size='-1'/></References>" SYSTEM(""),
         "size"},
        {ENVELOPE "<References><File ovf:id='f' ovf:href='a' ovf:compression='rot13'/>"
                  "</References>" SYSTEM(""),
         "gzip"},
        {ENVELOPE "<DiskSection><Disk ovf:diskId='d' ovf:capacity='1' ovf:fileRef='x'/>"
                  "</DiskSection>" SYSTEM(""),
         "fileRef"},
        {ENVELOPE "<DiskSection><Disk ovf:diskId='d' ovf:capacity='18446744073709551616'/>"
                  "</DiskSection>" SYSTEM(""),
         "capacity"},
        {ENVELOPE "<DiskSection><Disk ovf:diskId='d' ovf:capacity='1' "
                  "ovf:capacityAllocationUnits='parsec'/></DiskSection>" SYSTEM(""),
         "capacityAllocationUnits"},
        {ENVELOPE "<DiskSection><Disk ovf:diskId='d' ovf:capacity='1'/>"
                  "<Disk ovf:diskId='d' ovf:capacity='1'/></DiskSection>" SYSTEM(""),
         "two disks"},
        {ENVELOPE SYSTEM(ITEM("1", "x", "")), "ResourceType"},
        {ENVELOPE SYSTEM(ITEM("", "3", "")), "InstanceID"},
        {ENVELOPE SYSTEM(ITEM("1", "5", "") ITEM("1", "6", "")), "two items"},
        {ENVELOPE SYSTEM(ITEM("1", "4", "<rasd:VirtualQuantity>9e9</rasd:VirtualQuantity>")),
         "VirtualQuantity"},
        {ENVELOPE "<FutureSection ovf:required='true'/>" SYSTEM(""), "do not know"},
        {ENVELOPE "<FutureSection/>" SYSTEM(""), "do not know"},
    };
    struct mull_ovf ovf;
    struct mull_error err;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect_error(parse_ovf(wrong[i][0], NULL, &ovf, &err), &err, wrong[i][1]);
    assert_int_equal(
        parse_ovf(ENVELOPE "<FutureSection ovf:required='false'/>" SYSTEM(""), NULL, &ovf, &err),
        0);
    assert_int_equal(ovf.unknown_count, 1);
    mull_ovf_free(&ovf);
}

static void test_ovf_units(void **state)
{
    assert_true(mull_ovf_units(NULL) == 1);
    assert_true(mull_ovf_units("byte") == 1);
    assert_true(mull_ovf_units("byte * 2^40") == UINT64_C(1) << 40);
    assert_true(mull_ovf_units("byte*10^9") == 1000000000);
    assert_true(mull_ovf_units("MegaBytes") == 1 << 20);
    assert_true(mull_ovf_units("byte * 2^64") == 0);
    assert_true(mull_ovf_units("byte * 10^19") == 0);
    assert_true(mull_ovf_units("hertz * 10^6") == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xml_tree),
        cmocka_unit_test(test_xml_hostile),
        cmocka_unit_test(test_xml_written),
        cmocka_unit_test(test_tar_written_and_read),
        cmocka_unit_test(test_tar_hostile),
        cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_certificate_nonsense),
        cmocka_unit_test(test_vmx),
        cmocka_unit_test(test_ovf),
        cmocka_unit_test(test_ovf_wrong),
        cmocka_unit_test(test_ovf_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
