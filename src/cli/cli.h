/*
 * What the parts of the `mullion` command share: reporting, its subcommands.
 */
#ifndef MULL_CLI_CLI_H
#define MULL_CLI_CLI_H

#include "vmm/status.h"

/** Print "mullion: ..." as one line on standard error. @return @status, to be returned on */
int cli_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** The name of the @index-th command that asks no host. NULL: there are no more */
const char *cli_command_name(unsigned index);

/** Each gets its own name as argv[0]. @return the exit status */
int cli_run(int argc, char **argv);
int cli_engines(int argc, char **argv);
int cli_gdb(int argc, char **argv);
int cli_host(int argc, char **argv);
int cli_stats(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_import(int argc, char **argv);
int cli_export(int argc, char **argv);
int cli_attach(int argc, char **argv);
int cli_detach(int argc, char **argv);
int cli_parts(int argc, char **argv);
int cli_balloon(int argc, char **argv);
int cli_screen(int argc, char **argv);
int cli_screenshot(int argc, char **argv);
int cli_sendkey(int argc, char **argv);

#endif
