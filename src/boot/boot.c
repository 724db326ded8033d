/*
 * The front of direct boot: opens the files, tells their kind by their magic numbers and keeps what
 * the loaders share. A file is an adversary and may change while it is read: every field is bounded
 * before use and a short read is an error, never a fault.
 */
#include "boot/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/internal.h"

#define BOOT_FILE_MAX (8ull << 30)
#define BOOT_CHUNK (1u << 20)

int boot_read(const struct mull_boot_source *source, uint64_t offset, void *buf, uint64_t len,
              struct mull_error *err)
{
    if (offset > source->size || len > source->size - offset)
        return mull_fail(err, EINVAL,
                         "%s: truncated: %llu bytes at offset %llu lie beyond its end at %llu; "
                         "fetch the file again",
                         source->name, (unsigned long long)len, (unsigned long long)offset,
                         (unsigned long long)source->size);
    if (source->fd < 0) {
        memcpy(buf, source->bytes + offset, len);
        return 0;
    }
    uint8_t *to = buf;
    while (len) {
        ssize_t n = pread(source->fd, to, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mull_fail(err, errno, "%s: cannot be read: %s", source->name, strerror(errno));
        if (n == 0)
            return mull_fail(err, EIO, "%s: became shorter while it was read; start again",
                             source->name);
        to += n;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

int boot_copy(const struct mull_boot_source *source, uint64_t offset, struct mull_memory *mem,
              uint64_t gpa, uint64_t len, struct mull_error *err)
{
    uint8_t *chunk = malloc(BOOT_CHUNK);
    if (!chunk)
        return mull_fail(err, ENOMEM, "%s: no memory to read it", source->name);
    int ret = 0;
    while (len && !ret) {
        uint64_t n = len < BOOT_CHUNK ? len : BOOT_CHUNK;
        ret = boot_read(source, offset, chunk, n, err);
        if (!ret && mull_mem_load(mem, gpa, chunk, n))
            ret = mull_fail(err, EFAULT, "%s: guest address 0x%llx is not RAM; give --memory more",
                            source->name, (unsigned long long)gpa);
        offset += n;
        gpa += n;
        len -= n;
    }
    free(chunk);
    return ret;
}

bool boot_map_has_ram(const struct mull_boot_map *map, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct mull_boot_range *r = &map->range[i];
        if (r->type == MULL_BOOT_RAM && base >= r->base && base - r->base <= r->size &&
            size <= r->size - (base - r->base))
            return true;
    }
    return false;
}

uint64_t boot_map_total(const struct mull_boot_map *map)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < map->count; i++)
        if (map->range[i].type == MULL_BOOT_RAM)
            total += map->range[i].size;
    return total;
}

uint64_t boot_map_place_high(const struct mull_boot_map *map, uint64_t from, uint64_t to,
                             uint64_t size)
{
    uint64_t best = 0;
    for (unsigned i = 0; i < map->count; i++) {
        const struct mull_boot_range *r = &map->range[i];
        if (r->type != MULL_BOOT_RAM)
            continue;
        uint64_t low = r->base > from ? r->base : from;
        uint64_t high = r->base + r->size < to ? r->base + r->size : to;
        if (high <= low || high - low < size)
            continue;
        uint64_t place = (high - size) & MULL_PAGE_MASK;
        if (place >= low && place > best)
            best = place;
    }
    return best;
}

uint64_t boot_map_place_low(const struct mull_boot_map *map, uint64_t from, uint64_t to,
                            uint64_t size)
{
    uint64_t best = 0;
    for (unsigned i = 0; i < map->count; i++) {
        const struct mull_boot_range *r = &map->range[i];
        if (r->type != MULL_BOOT_RAM)
            continue;
        uint64_t low = r->base > from ? r->base : from;
        uint64_t high = r->base + r->size < to ? r->base + r->size : to;
        low = (low + MULL_PAGE_SIZE - 1) & MULL_PAGE_MASK;
        if (high > low && high - low >= size && (!best || low < best))
            best = low;
    }
    return best;
}

int boot_load_initrd(const struct mull_boot *boot, const struct boot_target *t, uint64_t floor,
                     uint64_t limit, uint64_t *gpa, uint64_t *size, struct mull_error *err)
{
    *gpa = *size = 0;
    if (!boot->has_initrd || !boot->initrd.size)
        return 0;
    uint64_t place = boot_map_place_high(t->map, floor, limit, boot->initrd.size);
    if (!place)
        return mull_fail(err, ENOSPC,
                         "%s: %llu KiB do not fit beside the kernel into %llu MiB of guest memory; "
                         "give --memory more or a smaller --initrd",
                         boot->initrd.name, (unsigned long long)(boot->initrd.size + 1023) >> 10,
                         (unsigned long long)boot_map_total(t->map) >> 20);
    *gpa = place;
    *size = boot->initrd.size;
    return boot_copy(&boot->initrd, 0, t->mem, place, boot->initrd.size, err);
}

int boot_load_cmdline(const struct mull_boot *boot, const struct boot_target *t, uint64_t max,
                      struct mull_error *err)
{
    size_t len = strlen(boot->cmdline);
    if (max > MULL_BOOT_CMDLINE_MAX - 1)
        max = MULL_BOOT_CMDLINE_MAX - 1;
    if (len > max)
        return mull_fail(err, E2BIG,
                         "kernel command line: %zu characters, this kernel takes %llu; shorten "
                         "--append",
                         len, (unsigned long long)max);
    if (mull_mem_load(t->mem, MULL_BOOT_CMDLINE, boot->cmdline, len + 1))
        return mull_fail(err, EFAULT, "kernel command line: no RAM at 0x%x", MULL_BOOT_CMDLINE);
    return 0;
}

void boot_set_version(struct mull_boot *boot, const char *text, size_t max)
{
    size_t n = 0;
    while (n < max && n + 1 < sizeof(boot->version) && text[n] >= ' ' && text[n] <= '~') {
        boot->version[n] = text[n];
        n++;
    }
    boot->version[n] = '\0';
}

static int check_kernel(struct mull_boot *boot, struct mull_error *err)
{
    const struct mull_boot_source *k = &boot->kernel;
    uint8_t start[0x206] = {0};
    uint64_t have = k->size < sizeof(start) ? k->size : sizeof(start);
    int ret = boot_read(k, 0, start, have, err);
    if (ret)
        return ret;
    if (have == sizeof(start) && !memcmp(start + 0x202, "HdrS", 4)) {
        boot->kind = MULL_BOOT_LINUX;
        return boot_linux_check(boot, err);
    }
    bool multiboot;
    ret = boot_multiboot_check(boot, &multiboot, err);
    boot->kind = MULL_BOOT_MULTIBOOT;
    if (ret || multiboot)
        return ret;
    if (have >= SELFMAG && !memcmp(start, ELFMAG, SELFMAG)) {
        boot->kind = MULL_BOOT_PVH;
        return boot_pvh_check(boot, err);
    }
    if (have < sizeof(start) && (start[0] == 'M' || have == 0))
        return mull_fail(err, EINVAL,
                         "%s: truncated: only %llu bytes; give --kernel a whole bzImage", k->name,
                         (unsigned long long)k->size);
    return mull_fail(err, EINVAL,
                     "%s: not an x86 kernel: neither a bzImage (no \"HdrS\" at 0x202) nor an ELF "
                     "file nor one with a multiboot header; give --kernel a bzImage or a vmlinux "
                     "with a PVH entry",
                     k->name);
}

static int open_source(const char *what, const char *path, struct mull_boot_source *source,
                       char **name, struct mull_error *err)
{
    size_t len = strlen(what) + strlen(path) + 2;
    *name = malloc(len);
    if (!*name)
        return mull_fail(err, ENOMEM, "%s %s: no memory", what, path);
    memcpy(*name, what, strlen(what));
    (*name)[strlen(what)] = ' ';
    memcpy(*name + strlen(what) + 1, path, strlen(path) + 1);
    source->name = *name;

    /* O_NONBLOCK: a FIFO given by mistake must not hang us. */
    source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source->fd < 0)
        return mull_fail(err, errno, "%s: %s; give --%s a file that can be read", *name,
                         errno == ENOENT ? "no such file" : strerror(errno), what);
    struct stat st;
    if (fstat(source->fd, &st))
        return mull_fail(err, errno, "%s: %s", *name, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return mull_fail(err, EINVAL, "%s: not a regular file; give --%s a file", *name, what);
    if ((uint64_t)st.st_size > BOOT_FILE_MAX)
        return mull_fail(err, EFBIG, "%s: %llu bytes are more than any %s has", *name,
                         (unsigned long long)st.st_size, what);
    source->size = (uint64_t)st.st_size;
    return 0;
}

static struct mull_boot *boot_new(const char *cmdline)
{
    struct mull_boot *boot = calloc(1, sizeof(*boot));
    if (!boot)
        return NULL;
    boot->kernel.fd = boot->initrd.fd = -1;
    boot->cmdline = strdup(cmdline ? cmdline : "");
    if (!boot->cmdline) {
        free(boot);
        return NULL;
    }
    return boot;
}

int mull_boot_open(const char *kernel, const char *initrd, const char *cmdline,
                   struct mull_boot **out, struct mull_error *err)
{
    struct mull_boot *boot = boot_new(cmdline);
    if (!boot)
        return mull_fail(err, ENOMEM, "kernel %s: no memory", kernel);
    int ret = open_source("kernel", kernel, &boot->kernel, &boot->kernel_name, err);
    if (!ret && initrd) {
        boot->has_initrd = true;
        ret = open_source("initrd", initrd, &boot->initrd, &boot->initrd_name, err);
    }
    if (!ret)
        ret = check_kernel(boot, err);
    if (!ret && initrd && boot->kind == MULL_BOOT_MULTIBOOT)
        ret = mull_boot_add_module(boot, initrd, NULL, err);
    if (ret) {
        mull_boot_close(boot);
        return ret;
    }
    *out = boot;
    return 0;
}

int mull_boot_open_bytes(const void *kernel, uint64_t kernel_size, const void *initrd,
                         uint64_t initrd_size, const char *cmdline, struct mull_boot **out,
                         struct mull_error *err)
{
    struct mull_boot *boot = boot_new(cmdline);
    if (!boot)
        return mull_fail(err, ENOMEM, "kernel: no memory");
    boot->kernel = (struct mull_boot_source){"kernel", -1, kernel, kernel_size};
    boot->initrd = (struct mull_boot_source){"initrd", -1, initrd, initrd_size};
    boot->has_initrd = initrd_size > 0;
    int ret = check_kernel(boot, err);
    if (!ret && initrd_size && boot->kind == MULL_BOOT_MULTIBOOT)
        ret = mull_boot_add_module_bytes(boot, initrd, initrd_size, NULL, err);
    if (ret) {
        mull_boot_close(boot);
        return ret;
    }
    *out = boot;
    return 0;
}

/* The next module; @args may be NULL. */
static int new_module(struct mull_boot *boot, const char *args, struct boot_module **out,
                      struct mull_error *err)
{
    if (boot->kind != MULL_BOOT_MULTIBOOT)
        return mull_fail(err, EINVAL,
                         "%s: takes no modules, only multiboot kernels do; leave --module out, or "
                         "give it as --initrd",
                         boot->kernel.name);
    if (boot->modules == BOOT_MODULES)
        return mull_fail(err, ENOSPC, "%s: more than %d modules", boot->kernel.name, BOOT_MODULES);
    struct boot_module *m = &boot->module[boot->modules++];
    *m = (struct boot_module){.source = {.fd = -1}, .args = strdup(args ? args : "")};
    *out = m;
    return m->args ? 0 : mull_fail(err, ENOMEM, "module: no memory");
}

int mull_boot_add_module(struct mull_boot *boot, const char *path, const char *args,
                         struct mull_error *err)
{
    struct boot_module *m;
    int ret = new_module(boot, args, &m, err);
    return ret ? ret : open_source("module", path, &m->source, &m->name, err);
}

int mull_boot_add_module_bytes(struct mull_boot *boot, const void *bytes, uint64_t size,
                               const char *args, struct mull_error *err)
{
    struct boot_module *m;
    int ret = new_module(boot, args, &m, err);
    if (!ret)
        m->source = (struct mull_boot_source){"module", -1, bytes, size};
    return ret;
}

void mull_boot_close(struct mull_boot *boot)
{
    if (!boot)
        return;
    if (boot->kernel.fd >= 0)
        close(boot->kernel.fd);
    if (boot->initrd.fd >= 0)
        close(boot->initrd.fd);
    for (unsigned i = 0; i < boot->modules; i++) {
        if (boot->module[i].source.fd >= 0)
            close(boot->module[i].source.fd);
        free(boot->module[i].name);
        free(boot->module[i].args);
    }
    free(boot->kernel_name);
    free(boot->initrd_name);
    free(boot->cmdline);
    free(boot);
}

enum mull_boot_kind mull_boot_kind(const struct mull_boot *boot)
{
    return boot->kind;
}

const char *mull_boot_version(const struct mull_boot *boot)
{
    return boot->version;
}

int mull_boot_load(struct mull_boot *boot, struct mull_memory *mem, const struct mull_boot_map *map,
                   uint64_t rsdp, struct mull_cpu_state *bsp, struct mull_error *err)
{
    if (!boot_map_has_ram(map, 0, MULL_BOOT_LOW_END))
        return mull_fail(err, EINVAL, "memory map: no RAM below 0x%x for the boot loader",
                         MULL_BOOT_LOW_END);
    struct boot_target target = {.mem = mem, .map = map, .rsdp = rsdp, .bsp = bsp};
    mull_cpu_state_reset(bsp, 0, true);
    if (boot->kind == MULL_BOOT_MULTIBOOT)
        return boot_multiboot_load(boot, &target, err);
    if (boot->kind == MULL_BOOT_PVH)
        return boot_pvh_load(boot, &target, err);
    return boot_linux_load(boot, &target, err);
}
