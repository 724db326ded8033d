/*
 * `mullion image partitions, ls, cat`: what is on a disk, without mounting it and without
 * privilege. ext2, ext3 and ext4 are read by libext2fs, through an I/O manager over our images;
 * other file systems by other programs, through `mullion image serve`.
 */
#include "cli/image.h"

#include <et/com_err.h>
#include <ext2fs/ext2fs.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/partition.h"

#define COPY_CHUNK 65536u

enum { OPT_FROM = 256, OPT_FORMAT, OPT_PARTITION, OPT_SNAPSHOT };

struct files_args {
    const char *from, *snapshot;
    unsigned partition;
    bool json;
};

static int parse(int argc, char **argv, int least, int most, struct files_args *a)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, OPT_FROM},
        {"format", required_argument, NULL, OPT_FORMAT},
        {"partition", required_argument, NULL, OPT_PARTITION},
        {"snapshot", required_argument, NULL, OPT_SNAPSHOT},
        {0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_FROM)
            a->from = optarg;
        else if (opt == OPT_SNAPSHOT)
            a->snapshot = optarg;
        else if (opt == OPT_PARTITION)
            a->partition = (unsigned)atoi(optarg);
        else if (opt != OPT_FORMAT || !image_parse_output(optarg, &a->json))
            return 1;
    }
    int given = argc - optind;
    return given >= least && given <= most ? 0
                                           : image_fail(1, "%s: give a FILE%s", argv[0],
                                                        most == 1    ? ""
                                                        : least == 1 ? " and, if you like, a PATH"
                                                                     : " and a PATH");
}

static struct mull_image *open_disk(const char *path, const struct files_args *a)
{
    struct mull_error err = {0};
    struct mull_image *image;
    struct mull_image_options o = {.path = path,
                                   .format = a->from,
                                   .readonly = true,
                                   .snapshot = a->snapshot,
                                   .log = &image_log,
                                   .source = image_source()};
    if (!mull_image_open(&o, &image, &err))
        return image;
    image_fail(1, "%s", err.message);
    return NULL;
}

static void print_table(const struct mull_partition_table *t)
{
    printf("table: %s%s\n", t->kind, t->backup ? " (its first copy is damaged)" : "");
    if (!t->count && t->content)
        printf("whole disk: %s\n", t->content);
    if (t->count)
        printf("%-4s %-14s %-14s %-5s %-9s %-37s %s\n", "NO", "START", "LENGTH", "BOOT", "CONTENT",
               "TYPE", "NAME");
    for (uint32_t i = 0; i < t->count; i++) {
        const struct mull_partition *p = &t->partitions[i];
        printf("%-4u %-14llu %-14llu %-5s %-9s %-37s %s\n", p->number, (unsigned long long)p->start,
               (unsigned long long)p->length, p->bootable ? "yes" : "",
               p->content ? p->content : "", p->type, p->name);
    }
}

static void print_table_json(const struct mull_partition_table *t)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < t->count; i++) {
        const struct mull_partition *p = &t->partitions[i];
        json_array_append_new(all,
                              json_pack("{s:i, s:I, s:I, s:s, s:b, s:s*, s:s}", "number",
                                        (int)p->number, "start", (json_int_t)p->start, "length",
                                        (json_int_t)p->length, "type", p->type, "bootable",
                                        p->bootable, "content", p->content, "name", p->name));
    }
    json_t *o = json_pack("{s:s, s:b, s:i, s:s*, s:o}", "table", t->kind, "from-backup", t->backup,
                          "sector-size", (int)t->sector, "content", t->content, "partitions", all);
    json_dumpf(o, stdout, JSON_INDENT(4));
    putchar('\n');
    json_decref(o);
}

int image_partitions(int argc, char **argv)
{
    struct files_args a = {0};
    struct mull_partition_table *t = calloc(1, sizeof(*t));
    struct mull_image *image;
    int status = t && !parse(argc, argv, 1, 1, &a) ? 0 : 1;

    if (!status && !(image = open_disk(argv[optind], &a)))
        status = 1;
    if (!status) {
        int ret = mull_partitions_read(image, t);
        if (ret)
            status = image_fail(1, "%s: %s", argv[optind], strerror(-ret));
        else if (a.json)
            print_table_json(t);
        else
            print_table(t);
        mull_image_close(image);
    }
    free(t);
    return status;
}

/* libext2fs opens its channel by a name: the one file system that is being read. */
static struct {
    struct mull_image *image;
    uint64_t start, length;
} device;

static errcode_t disk_open(const char *name, int flags, io_channel *out);

static errcode_t disk_close(io_channel channel)
{
    if (--channel->refcount > 0)
        return 0;
    free(channel->name);
    free(channel);
    return 0;
}

static errcode_t disk_set_blksize(io_channel channel, int size)
{
    channel->block_size = size;
    return 0;
}

/* @count: blocks, or bytes where it is negative. */
static errcode_t disk_read64(io_channel channel, unsigned long long block, int count, void *data)
{
    uint64_t size = (uint64_t)channel->block_size, offset;
    uint64_t length = count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * size;

    if (__builtin_mul_overflow((uint64_t)block, size, &offset) || offset > device.length ||
        length > device.length - offset)
        return EXT2_ET_SHORT_READ;
    return mull_image_read(device.image, data, length, device.start + offset) ? EXT2_ET_SHORT_READ
                                                                              : 0;
}

static errcode_t disk_read(io_channel channel, unsigned long block, int count, void *data)
{
    return disk_read64(channel, block, count, data);
}

static errcode_t disk_write(io_channel channel, unsigned long block, int count, const void *data)
{
    return EXT2_ET_RO_FILSYS;
}

static errcode_t disk_flush(io_channel channel)
{
    return 0;
}

static struct struct_io_manager disk_manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "Mullion image",
    .open = disk_open,
    .close = disk_close,
    .set_blksize = disk_set_blksize,
    .read_blk = disk_read,
    .write_blk = disk_write,
    .flush = disk_flush,
    .read_blk64 = disk_read64,
};

static errcode_t disk_open(const char *name, int flags, io_channel *out)
{
    io_channel channel = calloc(1, sizeof(*channel));

    if (!channel || !(channel->name = strdup(name))) {
        free(channel);
        return EXT2_ET_NO_MEMORY;
    }
    channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    channel->manager = &disk_manager;
    channel->block_size = 1024;
    channel->refcount = 1;
    *out = channel;
    return 0;
}

/* The partition that was asked for; without, the one that can be read. */
static int find_device(const struct files_args *a, const struct mull_partition_table *t)
{
    const struct mull_partition *found = NULL;
    uint32_t candidates = 0;

    device.start = 0;
    device.length = device.image->size;
    if (!t->count)
        return a->partition ? image_fail(1, "%s: has no partitions", device.image->path) : 0;
    for (uint32_t i = 0; i < t->count; i++) {
        const struct mull_partition *p = &t->partitions[i];
        bool ext = p->content && !strncmp(p->content, "ext", 3);
        if (a->partition ? p->number == a->partition : ext) {
            found = p;
            candidates++;
        }
    }
    if (candidates != 1)
        return image_fail(1, "%s: %s", device.image->path,
                          a->partition ? "there is no such partition"
                          : candidates ? "several partitions could be meant; say --partition N"
                                       : "no partition has an ext2, ext3 or ext4 file system");
    device.start = found->start;
    device.length = found->length;
    return 0;
}

static int open_files(const char *path, const struct files_args *a, ext2_filsys *fs)
{
    struct mull_partition_table *t = calloc(1, sizeof(*t));
    int status = t && (device.image = open_disk(path, a)) ? 0 : 1;

    if (!status && mull_partitions_read(device.image, t))
        status = image_fail(1, "%s: cannot read its partition table", path);
    if (!status)
        status = find_device(a, t);
    if (!status) {
        initialize_ext2_error_table();
        errcode_t code = ext2fs_open("disk", EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0,
                                     &disk_manager, fs);
        if (code)
            status = image_fail(1,
                                "%s: no ext2, ext3 or ext4 file system there (%s); for others see "
                                "mullion-image(1), FILES ON DISKS",
                                path, error_message(code));
        else if (ext2fs_has_feature_journal_needs_recovery((*fs)->super))
            image_fail(0, "%s: was not unmounted: its latest changes may not show", path);
    }
    free(t);
    return status;
}

static void close_files(ext2_filsys fs)
{
    if (fs)
        ext2fs_close_free(&fs);
    if (device.image)
        mull_image_close(device.image);
    device.image = NULL;
}

static int find_inode(ext2_filsys fs, const char *path, ext2_ino_t *ino, struct ext2_inode *inode)
{
    errcode_t code = ext2fs_namei_follow(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, ino);
    if (!code)
        code = ext2fs_read_inode(fs, *ino, inode);
    return code == EXT2_ET_FILE_NOT_FOUND ? image_fail(1, "%s: no such file or directory", path)
           : code ? image_fail(1, "%s: cannot be found: %s", path, error_message(code))
                  : 0;
}

struct listing {
    ext2_filsys fs;
    json_t *json; /* or NULL */
};

/* A name as it can be shown: a guest wrote it. */
static void clean_name(const char *from, size_t length, char *out, size_t room)
{
    size_t n = length < room - 1 ? length : room - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)from[i] < ' ' || from[i] == 0x7f ? '?' : from[i];
    out[n] = 0;
}

static int list_one(struct listing *l, ext2_ino_t ino, const char *name, size_t length)
{
    static const char kinds[] = "?pc?d?b?-?l?s???";
    struct ext2_inode inode;
    char text[EXT2_NAME_LEN + 1], mode[11], date[32] = "";

    if (ext2fs_read_inode(l->fs, ino, &inode))
        return 0;
    clean_name(name, length, text, sizeof(text));
    uint64_t size = EXT2_I_SIZE(&inode);
    mode[0] = kinds[inode.i_mode >> 12];
    for (int i = 0; i < 9; i++)
        mode[1 + i] = inode.i_mode & (0400 >> i) ? "rwx"[i % 3] : '-';
    mode[10] = 0;
    if (l->json) {
        json_t *shown = json_string(text); /* NULL: not UTF-8 */
        json_array_append_new(l->json, json_pack("{s:o, s:s, s:I, s:i, s:i, s:I}", "name",
                                                 shown ? shown : json_null(), "mode", mode, "size",
                                                 (json_int_t)size, "uid", (int)inode_uid(inode),
                                                 "gid", (int)inode_gid(inode), "modified",
                                                 (json_int_t)inode.i_mtime));
        return 0;
    }
    time_t when = (time_t)inode.i_mtime;
    struct tm tm;
    if (gmtime_r(&when, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
    printf("%s %5u %5u %12llu %s %s\n", mode, (unsigned)inode_uid(inode),
           (unsigned)inode_gid(inode), (unsigned long long)size, date, text);
    return 0;
}

static int on_entry(struct ext2_dir_entry *entry, int offset, int blocksize, char *buf,
                    void *opaque)
{
    int length = ext2fs_dirent_name_len(entry);
    if ((length == 1 && entry->name[0] == '.') ||
        (length == 2 && entry->name[0] == '.' && entry->name[1] == '.'))
        return 0;
    return list_one(opaque, entry->inode, entry->name, (size_t)length);
}

int image_ls(int argc, char **argv)
{
    struct files_args a = {0};
    struct ext2_inode inode;
    ext2_filsys fs = NULL;
    ext2_ino_t ino;

    if (parse(argc, argv, 1, 2, &a))
        return 1;
    const char *path = argc - optind == 2 ? argv[optind + 1] : "/";
    int status = open_files(argv[optind], &a, &fs);
    if (!status)
        status = find_inode(fs, path, &ino, &inode);
    struct listing l = {.fs = fs, .json = a.json ? json_array() : NULL};
    if (!status && !LINUX_S_ISDIR(inode.i_mode)) {
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
        list_one(&l, ino, name, strlen(name));
    } else if (!status) {
        errcode_t code = ext2fs_dir_iterate(fs, ino, 0, NULL, on_entry, &l);
        if (code)
            status = image_fail(1, "%s: cannot be listed: %s", path, error_message(code));
    }
    if (!status && l.json) {
        json_dumpf(l.json, stdout, JSON_INDENT(4));
        putchar('\n');
    }
    json_decref(l.json);
    close_files(fs);
    return status;
}

static int copy_out(ext2_filsys fs, ext2_ino_t ino, const char *path)
{
    static char buf[COPY_CHUNK];
    ext2_file_t file;
    errcode_t code = ext2fs_file_open(fs, ino, 0, &file);
    unsigned got = 0;

    if (code)
        return image_fail(1, "%s: cannot be opened: %s", path, error_message(code));
    do {
        code = ext2fs_file_read(file, buf, sizeof(buf), &got);
    } while (!code && got && fwrite(buf, 1, got, stdout) == got);
    ext2fs_file_close(file);
    if (code)
        return image_fail(1, "%s: cannot be read: %s", path, error_message(code));
    return fflush(stdout) || got ? image_fail(1, "%s: cannot write to standard output", path) : 0;
}

int image_cat(int argc, char **argv)
{
    struct files_args a = {0};
    struct ext2_inode inode;
    ext2_filsys fs = NULL;
    ext2_ino_t ino;

    if (parse(argc, argv, 2, 2, &a))
        return 1;
    const char *path = argv[optind + 1];
    int status = open_files(argv[optind], &a, &fs);
    if (!status)
        status = find_inode(fs, path, &ino, &inode);
    if (!status && !LINUX_S_ISREG(inode.i_mode))
        status = image_fail(1, "%s: is not a regular file", path);
    if (!status)
        status = copy_out(fs, ino, path);
    close_files(fs);
    return status;
}
