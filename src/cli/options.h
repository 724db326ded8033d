/*
 * The command line of `mullion run`, turned into the JSON configuration of a machine.
 */
#ifndef MULL_CLI_OPTIONS_H
#define MULL_CLI_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>

struct run_options {
    json_t *config;          /* for mullion-vmm; a console may still be "stdio" */
    const char *config_path; /* --config, or NULL */
    bool stdio;              /* there is a console on standard input and output */
    bool print;              /* --print-config */
    const char *control;     /* --control, or NULL */
    const char *gdb;         /* --gdb, or NULL */
    bool verbose, no_sandbox;
};

/**
 * Parse the command line. Says itself what is wrong.
 *
 * @return -1: go on, with *out to be freed with run_options_free(); else the exit status
 */
int run_options_parse(int argc, char **argv, struct run_options *out);

/** What single options' values mean, for commands that have the same options. Each says itself what
 *  is wrong. @param list  gets an object as in a configuration; @param config  gets its members
 *  @return -1: go on; else the exit status */
int options_disk(json_t *list, const char *text);
int options_net(json_t *list, const char *text);
int options_memory(json_t *config, const char *text);
int options_cpus(json_t *config, const char *text);

void run_options_free(struct run_options *options);

#endif
