/* Notes of interrupted conversions. See resume.h. */
#include "image/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/loop.h"

#define NOTE_MAX 65536u
#define IDENTITY_MAX 512
/* A target is written to this long after its note was, by us; later means by somebody else. */
#define GRACE_SECONDS 60

struct mull_resume {
    char *note, *fresh; /* paths: the note, and the next one until it is whole */
    const char *target;
    char *identity; /* of all that must not change; NULL: that cannot be told */
    uint64_t interval_ns, next_ns;
};

/* Append "WORD TEXT\n", growing. */
static int append(char **text, const char *word, const char *rest)
{
    size_t old = *text ? strlen(*text) : 0, more = strlen(word) + strlen(rest) + 3;
    char *grown = old + more < NOTE_MAX ? realloc(*text, old + more) : NULL;

    if (!grown)
        return -ENOMEM;
    snprintf(grown + old, more, "%s %s\n", word, rest);
    *text = grown;
    return 0;
}

static int append_file(char **text, struct mull_file *file)
{
    char identity[IDENTITY_MAX];
    int ret = mull_file_identity(file, identity, sizeof(identity));
    return ret ? ret : append(text, "source", identity);
}

static int append_boot(char **text)
{
    char id[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, id, sizeof(id) - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return -EOPNOTSUPP;
    id[strcspn(id, "\n")] = 0;
    return append(text, "boot", id);
}

/* Everything a note is compared by, but for the target. */
static int make_identity(const struct mull_resume_options *o, char **text)
{
    int ret = append(text, "mullion", "convert 1");

    if (!ret)
        ret = append_boot(text);
    if (!ret)
        ret = append(text, "settings", o->settings);
    for (struct mull_image *at = o->source; at && !ret; at = at->backing) {
        struct mull_file *part;
        ret = append(text, "format", at->format->name);
        if (!ret)
            ret = append_file(text, at->file);
        for (uint32_t i = 0; !ret && at->format->part && (part = at->format->part(at, i)); i++)
            ret = append_file(text, part);
    }
    return ret;
}

int mull_resume_open(const struct mull_resume_options *o, struct mull_resume **out,
                     struct mull_error *err)
{
    struct mull_resume *r = calloc(1, sizeof(*r));

    if (!r || asprintf(&r->note, "%s.resume", o->target) < 0 ||
        asprintf(&r->fresh, "%s.resume.new", o->target) < 0) {
        if (r)
            free(r->note);
        free(r);
        return mull_fail(err, ENOMEM, "%s: out of memory", o->target);
    }
    r->target = o->target;
    r->interval_ns = o->interval_ns;
    r->next_ns = mull_now_ns() + o->interval_ns;
    if (make_identity(o, &r->identity)) {
        free(r->identity);
        r->identity = NULL;
    }
    *out = r;
    return 0;
}

/* The target as it is known by: a file of its own. */
static int target_identity(const struct mull_resume *r, char *out, size_t room, struct stat *st)
{
    if (lstat(r->target, st) < 0)
        return -errno;
    if (!S_ISREG(st->st_mode))
        return -EOPNOTSUPP;
    snprintf(out, room, "%llx:%llx", (unsigned long long)st->st_dev,
             (unsigned long long)st->st_ino);
    return 0;
}

static char *read_note(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char *text = fd < 0 ? NULL : calloc(1, NOTE_MAX);
    ssize_t n = text && !fstat(fd, st) && S_ISREG(st->st_mode) ? read(fd, text, NOTE_MAX - 1) : -1;

    if (fd >= 0)
        close(fd);
    if (n > 0)
        return text;
    free(text);
    return NULL;
}

uint64_t mull_resume_start(struct mull_resume *r, struct mull_error *err)
{
    char target[64], ours[64];
    unsigned long long finished = 0;
    struct stat note_st, st;
    int end = 0;

    if (!r->identity) {
        mull_fail(err, ENOTSUP, "nothing tells whether the source is still the same");
        return 0;
    }
    char *text = read_note(r->note, &note_st);
    if (!text) {
        mull_fail(err, ENOENT, "%s: no note of an interrupted conversion", r->note);
        return 0;
    }
    size_t n = strlen(r->identity);
    if (strncmp(text, r->identity, n)) {
        mull_fail(err, ESTALE, "source, options or the host's boot are not what they were");
    } else if (sscanf(text + n, "target %63s\nfinished %llu\nend\n%n", target, &finished, &end) !=
                   2 ||
               !end) {
        finished = 0;
        mull_fail(err, EINVAL, "%s: not a whole note", r->note);
    } else if (target_identity(r, ours, sizeof(ours), &st) || strcmp(ours, target)) {
        finished = 0;
        mull_fail(err, ESTALE, "%s: is not the file that was begun", r->target);
    } else if (st.st_mtim.tv_sec > note_st.st_mtim.tv_sec + GRACE_SECONDS) {
        finished = 0;
        mull_fail(err, ESTALE, "%s: was changed after the interruption", r->target);
    }
    free(text);
    return finished;
}

/* A whole note or none: written beside, then renamed. */
static void write_note(struct mull_resume *r, uint64_t finished)
{
    char target[64];
    struct stat st;

    if (!r->identity || target_identity(r, target, sizeof(target), &st))
        return;
    int fd = open(r->fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        if (fd >= 0)
            close(fd);
        return;
    }
    fprintf(f, "%starget %s\nfinished %llu\nend\n", r->identity, target,
            (unsigned long long)finished);
    if (fclose(f) || rename(r->fresh, r->note))
        unlink(r->fresh);
}

int mull_resume_note(struct mull_resume *r, struct mull_image *target, uint64_t finished, bool now)
{
    if (!r->identity || target->stream || (!now && mull_now_ns() < r->next_ns))
        return 0;
    int ret = mull_image_flush(target);
    if (!ret)
        write_note(r, finished);
    r->next_ns = mull_now_ns() + r->interval_ns;
    return ret;
}

void mull_resume_forget(struct mull_resume *r)
{
    unlink(r->note);
    unlink(r->fresh);
}

void mull_resume_close(struct mull_resume *r)
{
    if (!r)
        return;
    free(r->note);
    free(r->fresh);
    free(r->identity);
    free(r);
}
