/*
 * The programs that the host's networks are made with, nft(8) and dnsmasq(8): started with the
 * capabilities they need and no others, found again, ended.
 */
#ifndef MULL_NET_PROCESS_H
#define MULL_NET_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/** Where a program is: PATH and the places of administrators' programs. malloc'ed; NULL: nowhere.
 */
char *net_process_find(const char *program);

/** Run a program to its end with @input on its standard input; the first line that it says is the
 *  error. @param capabilities  a mask: 1 << CAP_... */
int net_process_run(const char *const argv[], const char *input, uint64_t capabilities,
                    struct mull_error *err);

/** Find a process one of whose arguments begins with @argument. @return its PID, 0: none */
pid_t net_process_with(const char *argument);

/** End a process that has such an argument, and wait until it is gone; it is looked at again
 * before. */
void net_process_end(pid_t pid, const char *argument);

#endif
