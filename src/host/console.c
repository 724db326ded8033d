/*
 * See console.h.
 */
#include "host/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/machines.h"

#define LOG_MAX (1u << 20) /* then a new one is begun; the last one is kept, too */
#define TYPED_MAX 65536u
#define SHOWN_FIRST 32768u

struct console {
    struct host *host;
    char id[HOST_ID_MAX];
    int fd, log;
    uint64_t logged;
    struct mull_source *source;
    struct console_viewer *viewers;
    char *typed;
    size_t typed_len;
};

static void open_log(struct console *c)
{
    char *path = machine_file(c->host, c->id, "serial.log");
    struct stat st;
    c->log = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    c->logged = c->log >= 0 && !fstat(c->log, &st) ? (uint64_t)st.st_size : 0;
    free(path);
}

static void keep(struct console *c, const char *bytes, size_t len)
{
    if (c->log >= 0 && c->logged > LOG_MAX) {
        char *path = machine_file(c->host, c->id, "serial.log");
        char *old = machine_file(c->host, c->id, "serial.log.1");
        if (path && old)
            rename(path, old);
        free(path);
        free(old);
        close(c->log);
        open_log(c);
    }
    ssize_t n = c->log >= 0 ? write(c->log, bytes, len) : -1;
    if (n > 0)
        c->logged += (uint64_t)n;
}

/* The loop's thread, lock held. */
static void close_console(struct vm *vm)
{
    struct console *c = vm->console;
    vm->console = NULL;
    mull_source_remove(c->source);
    while (c->viewers) {
        struct console_viewer *v = c->viewers;
        c->viewers = v->next;
        v->console = NULL;
        v->gone(v);
    }
    if (c->fd >= 0)
        close(c->fd);
    if (c->log >= 0)
        close(c->log);
    free(c->typed);
    free(c);
}

static void flush_typed(struct console *c)
{
    while (c->typed_len) {
        ssize_t n = send(c->fd, c->typed, c->typed_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        c->typed_len -= (size_t)n;
        memmove(c->typed, c->typed + n, c->typed_len);
    }
    mull_source_modify(c->source, c->typed_len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void readable(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct host *host = vm->host;
    char bytes[16384];
    host_lock(host);
    struct console *c = vm->console;
    if (c && events & EPOLLOUT)
        flush_typed(c);
    ssize_t n = c ? recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT) : -1;
    if (n > 0) {
        keep(c, bytes, (size_t)n);
        for (struct console_viewer *v = c->viewers, *next; v; v = next) {
            next = v->next;
            v->data(v, bytes, (size_t)n);
        }
    } else if (c && (n == 0 || (errno != EAGAIN && errno != EINTR))) {
        close_console(vm);
    }
    host_unlock(host);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
        return fd;
    strcpy(address.sun_path, path);
    if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return fd;
    close(fd);
    return -1;
}

void console_begin(struct vm *vm)
{
    char *path = vm_file(vm->host, vm->id, "serial.sock");
    struct console *c = !vm->console && path ? calloc(1, sizeof(*c)) : NULL;
    if (c) {
        c->host = vm->host;
        snprintf(c->id, sizeof(c->id), "%s", vm->id);
        c->fd = connect_to(path);
        c->log = -1;
        vm->console = c;
        if (c->fd < 0 ||
            mull_loop_watch(vm->host->loop, c->fd, EPOLLIN, readable, vm, &c->source, NULL)) {
            if (c->fd >= 0)
                close(c->fd);
            vm->console = NULL;
            free(c);
        } else {
            open_log(c);
        }
    }
    free(path);
}

void console_end(struct vm *vm)
{
    if (vm->console)
        close_console(vm);
}

int console_attach(struct vm *vm, struct console_viewer *viewer)
{
    struct console *c = vm->console;
    size_t len = 0;
    if (!c)
        return -ENOTCONN;
    char *shown = console_log_read(vm->host, vm->id, SHOWN_FIRST, &len);
    viewer->console = c;
    viewer->next = c->viewers;
    c->viewers = viewer;
    if (len)
        viewer->data(viewer, shown, len);
    free(shown);
    return 0;
}

void console_detach(struct console_viewer *viewer)
{
    struct console *c = viewer->console;
    viewer->console = NULL;
    for (struct console_viewer **at = c ? &c->viewers : NULL; at && *at; at = &(*at)->next) {
        if (*at == viewer) {
            *at = viewer->next;
            return;
        }
    }
}

void console_type(struct console_viewer *viewer, const void *bytes, size_t len)
{
    struct console *c = viewer->console;
    if (!c)
        return;
    if (!c->typed && !(c->typed = malloc(TYPED_MAX)))
        return;
    if (len > TYPED_MAX - c->typed_len)
        len = TYPED_MAX - c->typed_len;
    memcpy(c->typed + c->typed_len, bytes, len);
    c->typed_len += len;
    flush_typed(c);
}

/* The end of a file, in front of what is there. */
static size_t read_end(const char *path, char *out, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = size > (off_t)max ? size - (off_t)max : 0;
    ssize_t n = fd >= 0 ? pread(fd, out, (size_t)(size - from), from) : 0;
    if (fd >= 0)
        close(fd);
    return n > 0 ? (size_t)n : 0;
}

char *console_log_read(struct host *host, const char *id, size_t max, size_t *len)
{
    char *path = machine_file(host, id, "serial.log"),
         *old = machine_file(host, id, "serial.log.1");
    char *text = malloc(max + 1), *older = malloc(max + 1);
    *len = 0;
    if (path && old && text && older) {
        *len = read_end(path, text, max);
        size_t before = *len < max ? read_end(old, older, max - *len) : 0;
        memmove(text + before, text, *len);
        memcpy(text, older, before);
        *len += before;
    }
    free(path);
    free(old);
    free(older);
    return text;
}
