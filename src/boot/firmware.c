/*
 * Firmware images come from the distribution's packages or from a file. The variable store is a
 * file of its own, made beside its final place and renamed, so that there is never half of one.
 */
#include "boot/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define ROM_MIN (64u << 10)
#define ROM_MAX (16u << 20)
#define LOW_BASE 0xe0000ull /* the last 128 KiB of the ROM are seen here, too */
#define LOW_SIZE 0x20000u
#define SHADOW_BASE 0xc0000ull
#define SHADOW_SIZE 0x40000u

/* UEFI: code and template of the variables belong together. */
static const struct {
    const char *code, *vars;
} uefi[] = {
    {"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"}, /* 64-bit throughout */
    {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    {"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
    {"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
};

static const char *const bios[] = {"/usr/share/seabios/bios-256k.bin",
                                   "/usr/share/qemu/bios-256k.bin", "/usr/share/seabios/bios.bin"};

static int read_fd(int fd, const char *path, uint8_t **data, uint32_t *size, uint64_t max,
                   struct mull_error *err)
{
    struct stat st;

    if (fstat(fd, &st))
        return mull_fail(err, errno, "firmware %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || !st.st_size || (uint64_t)st.st_size > max)
        return mull_fail(err, EINVAL, "firmware %s: not a file of 1 byte to %llu MiB", path,
                         (unsigned long long)max >> 20);
    *size = (uint32_t)st.st_size;
    *data = malloc(*size);
    if (!*data)
        return mull_fail(err, ENOMEM, "firmware %s: no memory", path);
    for (uint32_t have = 0; have < *size;) {
        ssize_t n = pread(fd, *data + have, *size - have, have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return mull_fail(err, n ? errno : EIO, "firmware %s: cannot be read: %s", path,
                             n ? strerror(errno) : "it became shorter");
        have += (uint32_t)n;
    }
    return 0;
}

/* On failure *data may be set all the same. */
static int read_path(const char *path, uint8_t **data, uint32_t *size, uint64_t max,
                     struct mull_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mull_fail(err, errno, "firmware %s: %s", path, strerror(errno));
    int ret = read_fd(fd, path, data, size, max, err);
    close(fd);
    return ret;
}

/* ---- The variable store ---- */

static int make_vars(const char *path, const uint8_t *data, uint32_t size, struct mull_error *err)
{
    size_t len = strlen(path) + 16;
    char *new = malloc(len);
    if (!new)
        return mull_fail(err, ENOMEM, "UEFI variables %s: no memory", path);
    snprintf(new, len, "%s.%ld.new", path, (long)getpid());
    int fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), ret = 0;
    /* link(2) does not replace what another process has made meanwhile. */
    if (fd < 0 || mull_write_all(fd, data, size) || fsync(fd) ||
        (link(new, path) && errno != EEXIST))
        ret = mull_fail(err, errno, "UEFI variables %s: cannot be made: %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
        unlink(new);
    }
    free(new);
    return ret;
}

static int open_vars(struct mull_firmware *f, const char *path, struct mull_error *err)
{
    uint8_t *found = NULL;
    uint32_t size = 0;

    if (access(path, F_OK)) {
        int ret = make_vars(path, f->vars, f->vars_size, err);
        if (ret)
            return ret;
    }
    f->vars_fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (f->vars_fd < 0)
        return mull_fail(err, errno, "UEFI variables %s: %s", path, strerror(errno));
    if (flock(f->vars_fd, LOCK_EX | LOCK_NB))
        return mull_fail(err, errno, "UEFI variables %s: %s", path,
                         errno == EWOULDBLOCK ? "in use by another machine; give each its own file"
                                              : strerror(errno));
    int ret = read_fd(f->vars_fd, path, &found, &size, ROM_MAX, err);
    if (!ret && size != f->vars_size)
        ret = mull_fail(err, EINVAL,
                        "UEFI variables %s: %u bytes, this firmware's store has %u; give another "
                        "file, or remove it to begin anew",
                        path, size, f->vars_size);
    if (!ret)
        memcpy(f->vars, found, size);
    free(found);
    return ret;
}

/* ---- Opening ---- */

static int open_bios(struct mull_firmware *f, struct mull_error *err)
{
    for (unsigned i = 0; i < sizeof(bios) / sizeof(bios[0]); i++)
        if (!access(bios[i], R_OK))
            return read_path(bios[i], &f->rom, &f->rom_size, ROM_MAX, err);
    return mull_fail(err, ENOENT,
                     "--firmware bios: %s is not there; install the package seabios, or give a "
                     "file",
                     bios[0]);
}

static int open_uefi(struct mull_firmware *f, struct mull_error *err)
{
    for (unsigned i = 0; i < sizeof(uefi) / sizeof(uefi[0]); i++) {
        if (access(uefi[i].code, R_OK) || access(uefi[i].vars, R_OK))
            continue;
        int ret = read_path(uefi[i].code, &f->rom, &f->rom_size, ROM_MAX, err);
        return ret ? ret : read_path(uefi[i].vars, &f->vars, &f->vars_size, ROM_MAX, err);
    }
    return mull_fail(err, ENOENT,
                     "--firmware uefi: %s is not there; install the package ovmf, or give a file",
                     uefi[0].code);
}

/* A UEFI build of two files, code and variables: "OVMF_CODE_4M.fd" has its template beside it, as
 * "OVMF_VARS_4M.fd". Where the code has a variant that the template lacks (".secboot"), the part of
 * the name behind the first dot is just ".fd". @return the template's path to free(), or NULL */
static char *find_template(const char *code)
{
    const char *slash = strrchr(code, '/'), *name = slash ? slash + 1 : code;
    const char *word = strstr(name, "CODE"), *dot = word ? strchr(word, '.') : NULL;
    char *path = NULL;

    if (!word)
        return NULL;
    if (asprintf(&path, "%.*sVARS%s", (int)(word - code), code, word + 4) < 0)
        return NULL;
    if (!access(path, R_OK))
        return path;
    free(path);
    if (!dot || asprintf(&path, "%.*sVARS%.*s.fd", (int)(word - code), code, (int)(dot - word - 4),
                         word + 4) < 0)
        return NULL;
    if (!access(path, R_OK))
        return path;
    free(path);
    return NULL;
}

/* Any image; one that keeps its variables in another file gets its store below it. */
static int open_file(struct mull_firmware *f, const char *path, struct mull_error *err)
{
    int ret = read_path(path, &f->rom, &f->rom_size, ROM_MAX, err);
    char *template = ret ? NULL : find_template(path);

    if (template)
        ret = read_path(template, &f->vars, &f->vars_size, ROM_MAX, err);
    free(template);
    return ret;
}

static int check(const struct mull_firmware *f, const char *which, struct mull_error *err)
{
    if (f->rom_size < ROM_MIN || (f->rom_size & 4095) || (f->vars_size & 4095) ||
        f->rom_size + f->vars_size > ROM_MAX)
        return mull_fail(err, EINVAL,
                         "--firmware %s: %u bytes; an image has 64 KiB to 16 MiB, in whole pages "
                         "of 4 KiB",
                         which, f->rom_size);
    return 0;
}

int mull_firmware_open(const char *which, const char *vars, struct mull_firmware **out,
                       struct mull_error *err)
{
    struct mull_firmware *f = calloc(1, sizeof(*f));
    int ret;

    if (!f)
        return mull_fail(err, ENOMEM, "firmware: no memory");
    f->vars_fd = -1;
    if (!strcmp(which, "bios"))
        ret = open_bios(f, err);
    else if (!strcmp(which, "uefi"))
        ret = open_uefi(f, err);
    else
        ret = open_file(f, which, err);
    if (!ret)
        ret = check(f, which, err);
    if (!ret && vars && !f->vars)
        ret =
            mull_fail(err, EINVAL,
                      "--nvram %s: only with --firmware uefi, or a file ...CODE....fd that has its "
                      "...VARS....fd beside it",
                      vars);
    if (!ret && vars)
        ret = open_vars(f, vars, err);
    if (ret) {
        mull_firmware_close(f);
        return ret;
    }
    *out = f;
    return 0;
}

void mull_firmware_close(struct mull_firmware *f)
{
    if (!f)
        return;
    if (f->vars_fd >= 0)
        close(f->vars_fd);
    free(f->rom);
    free(f->vars);
    free(f);
}

int mull_firmware_rom(const char *name, uint8_t **data, uint32_t *size, struct mull_error *err)
{
    static const char *const folders[] = {"/usr/share/seabios", "/usr/lib/ipxe/qemu",
                                          "/usr/share/qemu"};
    char path[256];

    for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (access(path, R_OK))
            continue;
        *data = NULL;
        int ret = read_path(path, data, size, ROM_MAX, err);
        if (ret)
            free(*data);
        return ret;
    }
    return mull_fail(err, ENOENT, "option ROM %s: not there", name);
}

void mull_firmware_rom_for(uint8_t *data, uint32_t size, uint16_t vendor, uint16_t device)
{
    const uint8_t ids[4] = {(uint8_t)vendor, (uint8_t)(vendor >> 8), (uint8_t)device,
                            (uint8_t)(device >> 8)};

    for (uint32_t at = 0;
         at < size && size - at >= 0x1a && data[at] == 0x55 && data[at + 1] == 0xaa;) {
        uint32_t pcir = at + (data[at + 0x18] | (uint32_t)data[at + 0x19] << 8);
        if (pcir > size || size - pcir < 0x18 || memcmp(data + pcir, "PCIR", 4))
            return;
        uint8_t change = 0;
        for (unsigned i = 0; i < 4; i++) {
            change = (uint8_t)(change + data[pcir + 4 + i] - ids[i]);
            data[pcir + 4 + i] = ids[i];
        }
        if (data[pcir + 0x14] == 0) /* for a BIOS: the sum of all bytes has to stay 0 */
            data[at + 6] = (uint8_t)(data[at + 6] + change);
        uint32_t length = (data[pcir + 0x10] | (uint32_t)data[pcir + 0x11] << 8) * 512;
        if ((data[pcir + 0x15] & 0x80) || !length)
            return;
        at += length;
    }
}

int mull_firmware_load(const struct mull_firmware *f, struct mull_memory *memory,
                       struct mull_error *err)
{
    uint32_t low = f->rom_size < LOW_SIZE ? f->rom_size : LOW_SIZE;

    if (mull_mem_load(memory, (1ull << 32) - f->rom_size, f->rom, f->rom_size) ||
        mull_mem_set(memory, SHADOW_BASE, 0xff, SHADOW_SIZE) ||
        mull_mem_load(memory, LOW_BASE + LOW_SIZE - low, f->rom + f->rom_size - low, low))
        return mull_fail(err, EFAULT, "firmware: no memory where it belongs");
    return 0;
}
