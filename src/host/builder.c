/*
 * See builder.h. A recipe runs in a session of its own, so that all of it ends when the task is
 * cancelled; what it makes lies in a folder that is removed whatever happens.
 */
#include "host/builder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/events.h"
#include "host/image_server.h"
#include "host/store/store.h"
#include "host/stores.h"
#include "host/tasks.h"
#include "host/transfers.h"

#define FOLDER ".building"
#define MINUTES_MAX 60
#define WORDS_MAX 4096 /* of what a recipe complains about, the last */

extern char **environ;

/* "…/mullion-vmm" is at the top of a build, or in libexec. @return malloc'ed */
static char *recipe_path(struct host *host, const char *name)
{
    static const char *const places[] = {"mullion/images", "../src/host/images"};
    char *vmm = strdup(host->options.vmm), *slash = vmm ? strrchr(vmm, '/') : NULL, *path = NULL;
    if (slash)
        *slash = '\0';
    for (unsigned i = 0; slash && host_name_valid(name) && i < 2; i++) {
        free(path);
        path = host_path(vmm, "%s/%s", places[i], name);
        if (path && !access(path, X_OK))
            break;
        free(path);
        path = NULL;
    }
    free(vmm);
    return path;
}

/* The `mullion` that recipes convert with: beside us. */
static char *own_program(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        return NULL;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    char *path = host_path(self, "mullion");
    if (path && access(path, X_OK)) { /* installed: sbin and bin */
        free(path);
        path = host_path(self, "../bin/mullion");
    }
    return path;
}

/* ---- The process ---- */

struct build {
    struct task *task;
    pid_t pid;
    int out;
    char line[512];
    size_t length;
    char words[WORDS_MAX + 1];
};

static int start(struct build *b, char *recipe, char *program, char *folder)
{
    char *argv[] = {recipe, program, folder, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC))
        return -errno;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, pipes[1], 1);
    posix_spawn_file_actions_adddup2(&files, pipes[1], 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    int code = posix_spawn(&b->pid, recipe, &files, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    close(pipes[1]);
    b->out = pipes[0];
    if (code)
        close(pipes[0]);
    return -code;
}

/* "step PERCENT TEXT", or a complaint. */
static void take_line(struct build *b)
{
    unsigned percent;
    int at = 0;
    b->line[b->length] = '\0';
    if (sscanf(b->line, "step %u %n", &percent, &at) == 1 && at) {
        task_progress(b->task, b->line + at, percent, 100);
    } else if (b->length) {
        size_t have = strlen(b->words), need = b->length + 1;
        if (have + need > WORDS_MAX) {
            memmove(b->words, b->words + WORDS_MAX / 2, have - WORDS_MAX / 2 + 1);
            have -= WORDS_MAX / 2;
        }
        if (have + need <= WORDS_MAX)
            snprintf(b->words + have, WORDS_MAX - have, "%s\n", b->line);
    }
    b->length = 0;
}

static bool take_output(struct build *b)
{
    char data[1024];
    ssize_t n = read(b->out, data, sizeof(data));
    for (ssize_t i = 0; i < n; i++)
        if (data[i] == '\n')
            take_line(b);
        else if (b->length < sizeof(b->line) - 1)
            b->line[b->length++] = data[i];
    return n > 0 || (n < 0 && errno == EINTR);
}

/* @return its exit status, -ECANCELED or -ETIMEDOUT */
static int follow(struct build *b)
{
    uint64_t deadline = mull_now_ns() + MINUTES_MAX * 60000000000ull;
    int ret = 0, status = 0;
    for (;;) {
        struct pollfd p = {.fd = b->out, .events = POLLIN};
        if (poll(&p, 1, 200) > 0 && !take_output(b))
            break;
        ret = b->task->cancelled ? -ECANCELED : mull_now_ns() > deadline ? -ETIMEDOUT : 0;
        if (ret) {
            kill(-b->pid, SIGKILL);
            break;
        }
    }
    close(b->out);
    while (waitpid(b->pid, &status, 0) < 0 && errno == EINTR)
        ;
    return ret ? ret : WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static const char *last_line(char *words)
{
    size_t n = strlen(words);
    while (n && words[n - 1] == '\n')
        words[--n] = '\0';
    char *line = strrchr(words, '\n');
    return line ? line + 1 : words;
}

/* ---- The task ---- */

static int adopt(struct task *task, const char *name, const char *folder, bool fetched,
                 struct host_problem *p)
{
    struct host *host = task->host;
    char *from = host_path(folder, "image.qcow2");
    host_lock(host);
    json_t *datastore = datastore_find(host, NULL);
    int ret = !from || !datastore
                  ? host_problem(p, HOST_CONFLICT, NULL, "there is no datastore for it")
              : store_get(host->store, KIND_IMAGE, name)
                  ? host_problem(p, HOST_CONFLICT, "/name", "image %s: is there already", name)
                  : image_adopt(host, name, "image", from, host_text(datastore, "id"),
                                json_string_value(json_object_get(task->args, "os")), p);
    if (!ret)
        host_event(host, fetched ? "image.fetched" : "image.built", NULL, name, task->user, "info",
                   NULL, "image %s was %s", name,
                   fetched ? "fetched from the image server" : "built");
    host_unlock(host);
    free(from);
    return ret;
}

/* What the image server has is checked and copied as any stranger's disk is.
 * @return 0, -ENOENT: it has none of that name; else -1 with @p */
static int fetch(struct task *task, const char *name, const char *folder, struct host_problem *p)
{
    bool known;
    char *file = image_server_fetch(task, name, folder, &known, p);
    if (!file)
        return known ? -1 : -ENOENT;
    char *place = host_path(folder, "image.qcow2");
    int ret = place ? transfer_take_disk(task, file, place, false, p)
                    : host_problem(p, HOST_INTERNAL, NULL, "no memory");
    free(file);
    free(place);
    return ret ? ret : adopt(task, name, folder, true, p);
}

static int build(struct task *task, const char *name, char *folder, struct host_problem *p)
{
    struct build b = {.task = task};
    char *recipe = recipe_path(task->host, name), *program = own_program();
    int ret = recipe && program ? start(&b, recipe, program, folder) : -ENOENT;
    if (!recipe && task->host->options.image_server)
        host_problem(p, HOST_NOT_FOUND, "/name",
                     "%s: the image server has none of that name, and there is no recipe to build "
                     "it by",
                     name);
    else if (ret)
        host_problem(p, HOST_CONFLICT, NULL, "%s: cannot be built: %s", name, strerror(-ret));
    else if ((ret = follow(&b)))
        host_problem(p, strstr(b.words, strerror(ENOSPC)) ? HOST_NO_SPACE : HOST_CONFLICT, NULL,
                     "%s: %s", name,
                     ret == -ECANCELED   ? "cancelled"
                     : ret == -ETIMEDOUT ? "took longer than an hour"
                                         : last_line(b.words));
    else
        ret = adopt(task, name, folder, false, p);
    free(recipe);
    free(program);
    return ret;
}

static int build_task(struct task *task, struct host_problem *p)
{
    struct host *host = task->host;
    const char *name = task->object_id;
    host_lock(host);
    json_t *datastore = datastore_find(host, NULL);
    char *folder =
        datastore ? host_path(host_text(datastore, "path"), FOLDER "/%s", task->id) : NULL;
    char *parent = datastore ? host_path(host_text(datastore, "path"), FOLDER) : NULL;
    host_unlock(host);
    int ret = folder && parent ? host_make_folder(parent, 0700) : -ENOENT;
    if (!ret)
        ret = host_make_folder(folder, 0700);
    if (ret) {
        host_problem(p, HOST_CONFLICT, NULL, "%s: cannot be built: %s", name, strerror(-ret));
    } else {
        ret = host->options.image_server ? fetch(task, name, folder, p) : -ENOENT;
        if (ret == -ENOENT)
            ret = build(task, name, folder, p);
    }
    if (folder)
        host_remove_tree(folder);
    free(folder);
    free(parent);
    return ret ? -1 : 0;
}

json_t *image_build(struct host *host, const char *user, const char *name, struct host_problem *p)
{
    char *recipe = recipe_path(host, name);
    bool known = recipe != NULL || (host->options.image_server && host_name_valid(name));
    free(recipe);
    if (store_get(host->store, KIND_IMAGE, name)) {
        host_problem(p, HOST_CONFLICT, "/name", "image %s: is there already", name);
        return NULL;
    }
    if (!known) {
        host_problem(p, HOST_INVALID, "/name",
                     "%s: this host has no recipe of that name; debian-12 is one", name);
        return NULL;
    }
    struct task_request request = {.type = "image.build",
                                   .kind = KIND_IMAGE,
                                   .object_id = name,
                                   .object_name = name,
                                   .user = user,
                                   .cancellable = true,
                                   .args = json_pack("{s:s}", "os", "debian12-64"),
                                   .fn = build_task};
    return task_start(host, &request, p);
}

void builder_recover(struct host *host)
{
    const char *id;
    json_t *doc;
    json_object_foreach(store_all(host->store, KIND_DATASTORE), id, doc)
    {
        char *path = host_path(host_text(doc, "path"), FOLDER);
        if (path)
            host_remove_tree(path);
        free(path);
    }
}
