/*
 * What commands print: tables for people, JSON for programs, CSV for spreadsheets. Knows JSON
 * values.
 */
#ifndef MULL_CLI_API_OUTPUT_H
#define MULL_CLI_API_OUTPUT_H

#include "cli/api/command.h"

enum column_kind {
    COLUMN_TEXT,
    COLUMN_SIZE,    /* bytes */
    COLUMN_TIME,    /* RFC 3339, shown in local time */
    COLUMN_SECONDS, /* a duration */
    COLUMN_PERCENT,
    COLUMN_LIST, /* of texts */
    COLUMN_YES,  /* true or false */
};

struct column {
    const char *head;
    const char *member; /* "usage.memory" */
    enum column_kind kind;
};

/** One value as a person reads it. @return malloc'ed */
char *output_text(const json_t *object, const struct column *column);

/** Print a list by --format. @param columns  ends with one without a head. @return the exit status
 */
int output_list(const struct host_call *call, json_t *items, const struct column *columns);

/** Print one object, a line for each column, or JSON. */
int output_object(const struct host_call *call, json_t *object, const struct column *columns);

/** Print JSON. */
int output_json(json_t *value);

#endif
