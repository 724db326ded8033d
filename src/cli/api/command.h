/*
 * Commands that ask a host: each is described once, in a table, and its parsing, --help, manual
 * page and completion come from that description.
 */
#ifndef MULL_CLI_API_COMMAND_H
#define MULL_CLI_API_COMMAND_H

#include "cli/api/api.h"

/** What an argument or an option's value names: for completion. */
enum host_kind {
    HOST_TEXT,
    HOST_FILE,
    HOST_MACHINE,
    HOST_IMAGE,
    HOST_NETWORK,
    HOST_DATASTORE,
    HOST_TEMPLATE,
    HOST_POOL,
    HOST_USER,
    HOST_GROUP,
    HOST_TOKEN,
    HOST_TASK,
    HOST_CONTEXT,
    HOST_COMMAND,
};

struct host_option {
    const char *name;  /* without the dashes; NULL ends a table */
    const char *value; /* "SIZE", or NULL: a flag. "a|b" are all values there are */
    const char *help;
    enum host_kind kind;
    bool many; /* may be given again and again */
};

/** What a command can do beyond its own options. */
enum {
    HOST_LISTS = 1,   /* --format table|json|csv */
    HOST_WAITS = 2,   /* --wait, --no-wait, --timeout: what it does is a task */
    HOST_OFFLINE = 4, /* it asks no host by itself */
    HOST_BOTH = 16,   /* one of the same name looks at machines of mullion run: its own manual page
                         is without "-host" */
    HOST_REST = 8,    /* what follows the arguments is not looked at: "-- COMMAND..." */
};

struct host_call;

struct host_command {
    const char *words; /* "start", "network create" */
    const char *arguments;
    const char *summary; /* a few words */
    const char *text;    /* more, or NULL */
    const struct host_option *options;
    unsigned least, most; /* arguments */
    enum host_kind kind;
    unsigned flags;
    int (*run)(struct host_call *call);
};

#define HOST_ARGUMENTS_MAX 256
#define HOST_OPTIONS_MAX 128

enum host_format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV };

/** One call of a command. */
struct host_call {
    const struct host_command *command;
    struct api *api; /* NULL: HOST_OFFLINE, until host_connect() */
    char *argument[HOST_ARGUMENTS_MAX];
    unsigned arguments;
    struct {
        const char *name, *value;
    } option[HOST_OPTIONS_MAX];
    unsigned options;
    enum host_format format;
    bool no_wait;
    double timeout; /* seconds; 0: none */
    const char *host, *context;
    struct host_place *place;
};

/** Is this a host's command? @param words  how many of argv it takes. @return NULL: no */
const struct host_command *host_command_find(int argc, char **argv, int *words);

/** Run one. @return the exit status */
int host_command_run(const struct host_command *command, int argc, char **argv);

/** Every command, ending with one without words. */
const struct host_command *const *host_commands(void);

/** The value of an option that was given, "" for a flag; NULL: it was not. The last counts. */
const char *host_option(const struct host_call *call, const char *name);

/** The next value of one that may be given many times; *at starts as 0. NULL: no more */
const char *host_option_next(const struct host_call *call, const char *name, unsigned *at);

/** Print "mullion: ..." @return @status */
int host_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Say why the last request failed. @return the exit status */
int host_failed(const struct host_call *call, const struct mull_error *err);

/** Reach the host, once, for a HOST_OFFLINE command too. @return -1: it is there; else the status
 */
int host_connect(struct host_call *call);

/** Its tables of options: its own, then what its flags say, then what all take. @return how many */
unsigned host_command_tables(const struct host_command *command, const struct host_option *out[4]);

/** "--help" of a command, or its manual page in mdoc(7). */
void host_command_help(const struct host_command *command, FILE *out);
void host_command_manual(const struct host_command *command, FILE *out);

/* ---- What many commands do ---- */

/** The object of @name (or id) in a list such as "/machines". Says itself what is wrong.
 *  @return its id, malloc'ed; NULL: *status is set */
char *host_find(struct host_call *call, const char *list, const char *what, const char *name,
                int *status);

/** Send, and print what is wrong. @param body  taken. @return the answer, or NULL: *status is set
 */
json_t *host_send(struct host_call *call, const char *method, char *path, json_t *body,
                  int *status);

/** Wait for the task that @answer is, unless --no-wait, with a progress bar on a terminal.
 *  @param answer  taken. @param task  its last state, a new reference, or NULL: not wanted.
 *  @return the exit status */
int host_wait(struct host_call *call, json_t *answer, json_t **task);

/** "10G" and the like as JSON. @return NULL: no size, which has been said */
json_t *host_size(const char *option, const char *text);
json_t *host_number(const char *option, const char *text, long least, long most);

/** Ask on the terminal. @return false: no, or nobody to ask */
bool host_confirm(const char *question);

/** A secret from the terminal, unseen, or the first line of standard input. @return malloc'ed */
char *host_secret(const char *prompt);

#endif
