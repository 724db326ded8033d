/*
 * The state of every device there is: two machines with all of them, of which one has run; what it
 * has saved is loaded into the other, and what that one saves must be the same. A device in src/
 * that neither machine nor list below has fails the test.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/legacy/tpm_crb.h"
#include "machine/internal.h"
#include "state/state.h"

#define MAX_KINDS 128
#define RUN_MS 1000

static char folder[] = "/tmp/mull-state-XXXXXX";

/* The kinds of devices that were tried. */
static const struct mull_device_ops *seen[MAX_KINDS];
static unsigned kinds;

static void see(const struct mull_device *device)
{
    assert_non_null(device->ops->state);
    for (unsigned i = 0; i < kinds; i++)
        if (seen[i] == device->ops)
            return;
    assert_true(kinds < MAX_KINDS);
    seen[kinds++] = device->ops;
}

static struct mull_device *list(struct mull_machine *m, unsigned which)
{
    return which ? m->devices : mull_platform_devices(m->platform);
}

static struct mull_state_writer *save(struct mull_machine *m, bool ram)
{
    struct mull_state_writer *w;
    struct mull_error err = {0};

    assert_int_equal(mull_state_writer_buffer(&w, &err), 0);
    if (ram)
        assert_int_equal(mull_state_write_ram(w, m->memory, &err), 0);
    for (unsigned which = 0; which < 2; which++)
        for (struct mull_device *d = list(m, which); d; d = d->next) {
            see(d);
            if (mull_state_write(w, d->name, 0, d->ops->state, d->object, &err))
                fail_msg("%s: %s", d->name, err.message);
        }
    assert_int_equal(mull_state_write_end(w, &err), 0);
    return w;
}

static struct mull_device *find(struct mull_machine *m, const char *name)
{
    for (unsigned which = 0; which < 2; which++)
        for (struct mull_device *d = list(m, which); d; d = d->next)
            if (!strcmp(d->name, name))
                return d;
    return NULL;
}

static struct mull_state_reader *open_state(struct mull_state_writer *w)
{
    struct mull_state_reader *r;
    struct mull_error err = {0};
    size_t size;
    const uint8_t *data = mull_state_writer_data(w, &size);

    assert_int_equal(mull_state_reader_buffer(data, size, &r, &err), 0);
    return r;
}

static void load(struct mull_machine *m, struct mull_state_writer *w)
{
    struct mull_state_reader *r = open_state(w);
    struct mull_state_section section;
    struct mull_error err = {0};

    while (mull_state_next(r, &section, &err) == 1) {
        int ret;
        if (section.kind == MULL_STATE_RAM) {
            ret = mull_state_read_ram(r, m->memory, &err);
        } else {
            struct mull_device *d = find(m, section.name);
            if (!d)
                fail_msg("the other machine has no %s", section.name);
            ret = mull_state_read(r, d->ops->state, d->object, &err);
        }
        if (ret)
            fail_msg("%s: %s", section.name, err.message);
    }
    assert_string_equal(err.message, "");
    mull_state_reader_destroy(r);
}

/* The JSON of a state, an object a line, so that a difference can be named. */
static char *dump(struct mull_state_writer *w)
{
    struct mull_error err = {0};
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct mull_state_reader *r = open_state(w);

    if (mull_state_dump(r, out, &err))
        fail_msg("%s", err.message);
    fclose(out);
    mull_state_reader_destroy(r);
    return text;
}

static void expect_equal(struct mull_state_writer *a, struct mull_state_writer *b)
{
    size_t n, m, at = 0;
    const uint8_t *bytes = mull_state_writer_data(a, &n), *others = mull_state_writer_data(b, &m);

    if (n == m && !memcmp(bytes, others, n))
        return;
    char *x = dump(a), *y = dump(b);
    while (x[at] && x[at] == y[at])
        at++;
    size_t from = at < 300 ? 0 : at - 300;
    fail_msg("saved again it differs at %zu:\n%.400s\n%.400s", at, x + from, y + from);
}

static void make_file(const char *name, off_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

/* What needs other programs or peers in a machine. Their other ends stay silent. */
static void add_more(struct mull_machine *m)
{
    static int (*const cards[3])(const struct mull_device_env *, struct mull_pci_bus *,
                                 const struct mull_nic_config *, struct mull_device **,
                                 struct mull_error *) = {mull_virtio_net_create, mull_e1000e_create,
                                                         mull_vmxnet3_create};
    static const char *const names[3] = {"virtio-net.0", "e1000e.0", "vmxnet3.0"};
    const struct mull_device_env env = {
        .memory = m->memory, .loop = m->loop, .clock = m->clock, .log = m->log};
    struct mull_pci_bus *bus = mull_platform_pci(m->platform);
    struct mull_error err = {0};
    struct mull_device *device;
    char tpm[64];
    int pair[2];

    for (unsigned i = 0; i < 3; i++) {
        const struct mull_nic_config cfg = {
            .name = names[i], .devfn = -1, .mac = {2, 0, 0, 0, 0, 1}};
        assert_int_equal(cards[i](&env, bus, &cfg, &device, &err), 0);
        machine_add_device(m, device);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const struct mull_virtio_share_config share = {
        .name = "virtio-share.0", .devfn = -1, .tag = "t", .socket = pair[0], .drain_ms = 1};
    assert_int_equal(mull_virtio_share_create(&env, bus, &share, &device, &err), 0);
    machine_add_device(m, device);
    close(pair[1]);
    if (access("/usr/bin/swtpm", X_OK))
        return;
    snprintf(tpm, sizeof(tpm), "%s/tpm", folder);
    const struct mull_tpm_config cfg = {.folder = tpm};
    if (mull_tpm_crb_create(&env, &cfg, &device, &err))
        fail_msg("%s", err.message);
    machine_add_device(m, device);
}

/* @param more  members that a version may not know yet, each with its comma */
static int parse(const char *firmware, const char *video, const char *disks, const char *more,
                 struct mull_machine_config *config, struct mull_error *err)
{
    char json[4096];

    snprintf(json, sizeof(json),
             "{\"engine\": \"soft\", \"memory\": 134217728, \"cpus\": 1, \"cpus_max\": 2,"
             " \"firmware\": \"%s\", \"video\": {\"model\": \"%s\"}, \"test_devices\": true,"
             " \"balloon\": true, %s \"watchdog\": \"none\", \"vsock\": {\"path\": \"%s/vsock\"},"
             " \"input\": {\"tablet\": true, \"keyboard\": true}, \"disks\": [%s],"
             " \"cdroms\": [{\"bus\": \"sata\"}, {\"bus\": \"ide\"}, {\"bus\": \"scsi\"}],"
             " \"consoles\": [{\"type\": \"none\"}, {\"type\": \"none\", \"device\": \"virtio\"}]}",
             firmware, video, more, folder, disks);
    return mull_machine_config_parse(json, config, err);
}

static struct mull_machine *make(const char *firmware, const char *video)
{
    static const char *const buses[] = {"virtio", "scsi", "nvme", "sata", "ide", "pvscsi"};
    char disks[1024] = "";
    struct mull_machine_config config;
    struct mull_error err = {0};
    struct mull_machine *m = NULL;

    for (unsigned i = 0; i < 6; i++) {
        make_file(buses[i], 1 << 20);
        size_t n = strlen(disks);
        snprintf(
            disks + n, sizeof(disks) - n,
            "%s{\"path\": \"%s/%s\", \"format\": \"raw\", \"readonly\": true, \"bus\": \"%s\"}",
            i ? ", " : "", folder, buses[i], buses[i]);
    }
    int ret = parse(firmware, video, disks, "\"vmware_tools\": true,", &config, &err);
    if (ret) {
        mull_machine_config_free(&config);
        ret = parse(firmware, video, disks, "", &config, &err);
    }
    if (!ret)
        ret = mull_machine_create(&config, NULL, &m, &err);
    mull_machine_config_free(&config);
    if (ret)
        fail_msg("%s", err.message);
    add_more(m);
    return m;
}

/* What a machine has that ran for a while. */
struct saved {
    struct mull_state_writer *all, *devices;
    uint64_t ns, tsc;
};

static void run_and_save(const char *firmware, const char *video, struct saved *out)
{
    struct mull_machine *m = make(firmware, video);
    struct mull_error err = {0};

    assert_int_equal(mull_machine_start(m, &err), 0);
    usleep(RUN_MS * 1000);
    assert_int_equal(mull_machine_pause(m, &err), 0);
    out->ns = mull_clock_now(m->clock);
    out->tsc = mull_clock_tsc(m->clock);
    out->all = save(m, true);
    /* What was due at that moment, a timer's line say, happens when it is loaded. */
    load(m, out->all);
    out->devices = save(m, false);
    mull_machine_destroy(m);
}

static void try_machine(const char *firmware, const char *file, const char *video)
{
    struct saved saved;

    if (access(file, R_OK)) {
        print_message("%s is not installed\n", file);
        return;
    }
    run_and_save(firmware, video, &saved);
    struct mull_machine *m = make(firmware, video);
    mull_clock_set(m->clock, saved.ns, saved.tsc);
    load(m, saved.all);
    struct mull_state_writer *devices = save(m, false);
    expect_equal(saved.devices, devices);
    mull_machine_destroy(m);
    mull_state_writer_destroy(devices);
    mull_state_writer_destroy(saved.devices);
    mull_state_writer_destroy(saved.all);
}

static void test_bios(void **state)
{
    try_machine("bios", "/usr/share/seabios/bios-256k.bin", "vga");
}

static void test_uefi(void **state)
{
    try_machine("uefi", "/usr/share/OVMF/OVMF_CODE.fd", "virtio");
}

/* Every device in the sources has been tried: each has one struct mull_device_ops. */
static unsigned count_in(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;
    char name[4096], line[256];

    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (*e->d_name == '.' || stat(name, &st))
            continue;
        if (S_ISDIR(st.st_mode)) {
            count += count_in(name);
            continue;
        }
        FILE *f = fopen(name, "r");
        while (f && fgets(line, sizeof(line), f))
            count += !strncmp(line, "static const struct mull_device_ops ", 36);
        fclose(f);
    }
    closedir(dir);
    return count;
}

static void test_all_were_there(void **state)
{
    unsigned missing = access("/usr/bin/swtpm", X_OK) != 0;

    if (access("/usr/share/seabios/bios-256k.bin", R_OK) ||
        access("/usr/share/OVMF/OVMF_CODE.fd", R_OK))
        return; /* said above */
    unsigned want = count_in(SOURCE_ROOT "/src/device") + count_in(SOURCE_ROOT "/src/platform");
    if (kinds + missing != want) {
        for (unsigned i = 0; i < kinds; i++)
            print_message("tried: %s\n", seen[i]->state->name);
        fail_msg("%u kinds of devices in src/, %u were tried", want, kinds);
    }
}

static int setup(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bios),
        cmocka_unit_test(test_uefi),
        cmocka_unit_test(test_all_were_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
