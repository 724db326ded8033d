/*
 * The bytes of VIX guest operations as open-vm-tools speak them (open-vm-tools:
 * lib/include/vixCommands.h, lib/foundryMsg, services/plugins/vix) and of HGFS, version 3, within
 * them (lib/include/hgfsProto.h). Makes requests and reads answers; sends nothing. Answers are an
 * adversary's: everything in them is bounded.
 */
#ifndef MULL_HOST_VIX_WIRE_H
#define MULL_HOST_VIX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIX_MESSAGE_MAX (64u << 10) /* GUESTMSG_MAX_IN_SIZE */
#define VIX_NAME_MAX 256            /* bytes of a user's name, and of a password */
#define VIX_PATH_MAX 4096           /* bytes of a guest's path, with its 0 */
#define VIX_PIECE (60u << 10)       /* bytes of a file in one message: HGFS_LARGE_IO_MAX */

/* A request. Wipe it when it has been sent: it holds the password. */
struct vix_message {
    bool bad; /* it did not fit, or a name is too long: do not send it */
    size_t size, body_at;
    uint8_t data[VIX_MESSAGE_MAX];
};

struct vix_user {
    const char *name, *password;
};

/* Opcodes (vixCommands.h) that are used. */
enum vix_command {
    VIX_HGFS = 84,
    VIX_CREATE_TEMPORARY_DIRECTORY = 182,
    VIX_START_PROGRAM = 185,
    VIX_LIST_PROCESSES = 186,
    VIX_VALIDATE_CREDENTIALS = 192,
    VIX_TERMINATE_PROCESS = 193,
    VIX_DELETE_DIRECTORY = 195,
};

/* Each makes a whole request of @user in @m. */
void vix_validate(struct vix_message *m, const struct vix_user *user);
void vix_make_folder(struct vix_message *m, const struct vix_user *user, const char *prefix);
void vix_delete_folder(struct vix_message *m, const struct vix_user *user, const char *path);
/** @param arguments  for a shell, which splits them */
void vix_start(struct vix_message *m, const struct vix_user *user, const char *program,
               const char *arguments);
void vix_list_process(struct vix_message *m, const struct vix_user *user, uint64_t pid);
void vix_terminate(struct vix_message *m, const struct vix_user *user, uint64_t pid);

/* HGFS. @param path  begins with a slash */
void vix_open_file(struct vix_message *m, const struct vix_user *user, const char *path,
                   bool write);
void vix_read(struct vix_message *m, const struct vix_user *user, uint32_t file, uint64_t offset,
              uint32_t size);
void vix_write(struct vix_message *m, const struct vix_user *user, uint32_t file, uint64_t offset,
               const void *data, uint32_t size);
void vix_close_file(struct vix_message *m, const struct vix_user *user, uint32_t file);

/* What a guest has answered: @data points into what was given. */
struct vix_answer {
    uint32_t error;   /* a VixError's code, 0: none */
    bool unknown;     /* the guest does not know the command: no plugin for it */
    const char *data; /* text or bytes */
    size_t size;
};

/** "OK ERROR ERRNO TEXT", "OK ERROR ERRNO #BYTES". @return 0, or -EPROTO: it is neither */
int vix_parse(const void *data, size_t size, bool binary, struct vix_answer *out);

/** What an error means, in a few words. */
const char *vix_error_text(uint32_t error);

/** A whole number that is all of an answer. @return 0 or -EPROTO */
int vix_parse_pid(const struct vix_answer *a, uint64_t *pid);

/** A path that is all of an answer. @return 0 or -EPROTO: it does not begin with a slash, or has
 *  bytes that a shell would take for more than a name */
int vix_parse_path(const struct vix_answer *a, char out[VIX_PATH_MAX]);

/** One process in a list. @return 0; -ENOENT: it is not there; -EPROTO */
int vix_parse_process(const struct vix_answer *a, uint64_t pid, bool *ended, int *status);

/** The beginning of every answer of HGFS. @param status  HgfsStatus; 0: what it is asked for
 *  follows in *@out. @return 0 or -EPROTO */
int hgfs_parse(const struct vix_answer *a, uint32_t *status, struct vix_answer *out);
int hgfs_parse_open(const struct vix_answer *a, uint32_t *file);
/** @param wanted  more is an error. @return 0 or -EPROTO */
int hgfs_parse_read(const struct vix_answer *a, uint32_t wanted, const void **data, uint32_t *size);
int hgfs_parse_write(const struct vix_answer *a, uint32_t wanted, uint32_t *size);
const char *hgfs_status_text(uint32_t status);

#endif
