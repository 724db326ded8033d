/*
 * Objects that are listed, made, shown, changed and deleted by name in the same way: networks,
 * pools, datastores, users, groups. Each describes itself.
 */
#ifndef MULL_CLI_API_SIMPLE_H
#define MULL_CLI_API_SIMPLE_H

#include "cli/api/output.h"

struct simple_kind {
    const char *list; /* "/networks" */
    const char *what; /* "network" */
    bool by_name;     /* its name is its id in paths */
    const struct column *columns, *details;
    /** Put what the options say. @return false: wrong, which has been said */
    bool (*put)(struct host_call *call, json_t *body);
};

int simple_list(struct host_call *call, const struct simple_kind *kind);
int simple_info(struct host_call *call, const struct simple_kind *kind);
int simple_create(struct host_call *call, const struct simple_kind *kind);
int simple_edit(struct host_call *call, const struct simple_kind *kind);
int simple_delete(struct host_call *call, const struct simple_kind *kind);

/** The path of the object of that name. @return malloc'ed; NULL: *status is set */
char *simple_path(struct host_call *call, const struct simple_kind *kind, const char *name,
                  int *status);

/** Options whose values are texts, flags "on|off" and numbers, put under their own names. */
bool simple_put_text(struct host_call *call, json_t *body, const char *option, const char *member);
bool simple_put_switch(struct host_call *call, json_t *body, const char *option,
                       const char *member);

#endif
