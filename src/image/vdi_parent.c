/*
 * The parent of a differencing VDI. The image names it by UUID only: VirtualBox keeps a list of all
 * disks. We look where it puts them: beside the image, and one folder up (of "Snapshots").
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/vdi.h"

/* Files looked at in one folder. */
#define LOOK_MOST 4096

void mull_vdi_uuid_text(const uint8_t *uuid, char out[37])
{
    snprintf(out, 37, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", mull_le32(uuid),
             mull_le16(uuid + 4), mull_le16(uuid + 6), uuid[8], uuid[9], uuid[10], uuid[11],
             uuid[12], uuid[13], uuid[14], uuid[15]);
}

static bool is_it(int folder, const char *name, const uint8_t *uuid)
{
    uint8_t h[512];
    struct stat st;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool found = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
                 pread(fd, h, sizeof(h), 0) == sizeof(h) && mull_le32(h + 64) == VDI_MAGIC &&
                 !memcmp(h + VDI_AT_UUID, uuid, 16);
    if (fd >= 0)
        close(fd);
    return found;
}

/* Look in one folder. @return the name, as the image would name it, or NULL */
static char *look_in(const char *folder, const char *prefix, const char *self, const uint8_t *uuid)
{
    DIR *dir = opendir(folder);
    char *found = NULL;
    struct dirent *entry;

    for (int i = 0; dir && !found && i < LOOK_MOST && (entry = readdir(dir)); i++) {
        size_t n = strlen(entry->d_name);
        if (n < 5 || strcasecmp(entry->d_name + n - 4, ".vdi"))
            continue;
        if (!*prefix && self && !strcmp(self, entry->d_name))
            continue;
        if (is_it(dirfd(dir), entry->d_name, uuid) &&
            asprintf(&found, "%s%s", prefix, entry->d_name) < 0)
            found = NULL;
    }
    if (dir)
        closedir(dir);
    return found;
}

char *mull_vdi_find_parent(const char *path, const uint8_t *uuid)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./"), *up = NULL;
    char *found = folder ? look_in(folder, "", slash ? slash + 1 : path, uuid) : NULL;

    if (!found && folder && asprintf(&up, "%s../", folder) >= 0) {
        found = look_in(up, "../", NULL, uuid);
        free(up);
    }
    free(folder);
    return found;
}
