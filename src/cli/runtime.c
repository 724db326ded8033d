/*
 * See runtime.h.
 */
#include "cli/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 32

static bool folder(char path[RUNTIME_PATH_MAX])
{
    const char *own = getenv("MULLION_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    int n;

    if (own && *own)
        n = snprintf(path, RUNTIME_PATH_MAX, "%s", own);
    else if (xdg && *xdg)
        n = snprintf(path, RUNTIME_PATH_MAX, "%s/mullion", xdg);
    else if (geteuid() == 0)
        n = snprintf(path, RUNTIME_PATH_MAX, "/run/mullion");
    else
        n = snprintf(path, RUNTIME_PATH_MAX, "/tmp/mullion-%u", geteuid());
    if (n >= RUNTIME_PATH_MAX)
        return false;
    mkdir(path, 0700);
    /* Somebody else may have been first in /tmp. */
    return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           !(st.st_mode & 077);
}

/* The part of a machine's name that may be a file's. */
static void file_name(const char *name, char out[NAME_MAX_BYTES + 1])
{
    size_t n = 0;

    for (; *name && n < NAME_MAX_BYTES; name++)
        out[n++] = *name == '/' || (unsigned char)*name <= ' ' ? '_' : *name;
    if (n && out[0] == '.')
        out[0] = '_';
    out[n] = '\0';
}

void runtime_remove(const char *path)
{
    char copy[RUNTIME_PATH_MAX];

    if (!*path || strlen(path) >= sizeof(copy))
        return;
    unlink(path);
    strcpy(copy, path);
    *strrchr(copy, '/') = '\0';
    rmdir(copy);
}

void runtime_list(bool (*fn)(void *opaque, const char *name, int pid, const char *path),
                  void *opaque)
{
    char base[RUNTIME_PATH_MAX];
    struct dirent *e;
    bool more = true;
    DIR *dir = folder(base) ? opendir(base) : NULL;

    while (dir && more && (e = readdir(dir))) {
        char path[RUNTIME_PATH_MAX];
        char *dot = strrchr(e->d_name, '.'), *end = NULL;
        long pid = dot && dot != e->d_name ? strtol(dot + 1, &end, 10) : 0;

        if (pid <= 0 || *end ||
            snprintf(path, sizeof(path), "%s/%s/control", base, e->d_name) >= (int)sizeof(path))
            continue;
        if (kill((pid_t)pid, 0) && errno == ESRCH) {
            runtime_remove(path);
            continue;
        }
        *dot = '\0';
        if (fn && !access(path, F_OK))
            more = fn(opaque, e->d_name, (int)pid, path);
    }
    if (dir)
        closedir(dir);
}

bool runtime_make(const char *name, char path[RUNTIME_PATH_MAX])
{
    char base[RUNTIME_PATH_MAX], file[NAME_MAX_BYTES + 1];

    path[0] = '\0';
    runtime_list(NULL, NULL);
    file_name(name, file);
    if (!folder(base))
        return false;
    int n = snprintf(path, RUNTIME_PATH_MAX, "%s/%s.%d", base, file, (int)getpid());
    if (n < 0 || n + (int)sizeof("/control") > RUNTIME_PATH_MAX ||
        (mkdir(path, 0700) && errno != EEXIST)) {
        path[0] = '\0';
        return false;
    }
    strcat(path, "/control");
    return true;
}
