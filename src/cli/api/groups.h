/* The tables of commands, each in a file of its own; a table ends with one without words. */
#ifndef MULL_CLI_API_GROUPS_H
#define MULL_CLI_API_GROUPS_H

#include "cli/api/command.h"

extern const struct host_command host_machine_commands[]; /* machines.c */
extern const struct host_command host_power_commands[];   /* power.c */
extern const struct host_command host_guest_commands[];   /* guest.c */
extern const struct host_command host_screen_commands[];  /* screen.c */
extern const struct host_command host_image_commands[];   /* images.c */
extern const struct host_command host_network_commands[]; /* networks.c */
extern const struct host_command host_pool_commands[];    /* pools.c */
extern const struct host_command host_storage_commands[]; /* storage.c */
extern const struct host_command host_template_commands[]; /* templates.c */
extern const struct host_command host_user_commands[];    /* users.c */
extern const struct host_command host_task_commands[];    /* tasks.c */
extern const struct host_command host_context_commands[]; /* contexts.c */
extern const struct host_command host_shell_commands[];   /* complete.c */

#endif
