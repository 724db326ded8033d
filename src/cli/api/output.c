/* See output.h. What a host answers may hold anything: control characters never reach the terminal.
 */
#include "cli/api/output.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COLUMNS_MAX 16

static const json_t *member_of(const json_t *object, const char *path)
{
    char name[64];

    for (;;) {
        size_t length = strcspn(path, ".");

        if (length >= sizeof(name))
            return NULL;
        memcpy(name, path, length);
        name[length] = '\0';
        object = json_object_get(object, name);
        if (!path[length])
            return object;
        path += length + 1;
    }
}

static void print_size(double bytes, FILE *out)
{
    static const char units[] = "BKMGTPE";
    unsigned unit = 0;

    for (; bytes >= 1024 && unit < sizeof(units) - 2; unit++)
        bytes /= 1024;
    if (unit)
        fprintf(out, bytes < 10 ? "%.1f%ciB" : "%.0f%ciB", bytes, units[unit]);
    else
        fprintf(out, "%.0fB", bytes);
}

static void print_seconds(double seconds, FILE *out)
{
    unsigned long s = seconds > 0 ? (unsigned long)seconds : 0;

    if (s < 60)
        fprintf(out, "%lus", s);
    else if (s < 3600)
        fprintf(out, "%lum%02lus", s / 60, s % 60);
    else if (s < 86400)
        fprintf(out, "%luh%02lum", s / 3600, s / 60 % 60);
    else
        fprintf(out, "%lud%02luh", s / 86400, s / 3600 % 24);
}

static void print_time(const char *text, FILE *out)
{
    struct tm tm = {0};
    char local[32];

    if (!strptime(text, "%Y-%m-%dT%H:%M:%S", &tm)) {
        fputs(text, out);
        return;
    }
    time_t at = timegm(&tm);
    localtime_r(&at, &tm);
    strftime(local, sizeof(local), "%Y-%m-%d %H:%M:%S", &tm);
    fputs(local, out);
}

static void print_value(const json_t *v, enum column_kind kind, FILE *out)
{
    size_t i;
    const json_t *one;

    if (json_is_array(v)) {
        json_array_foreach((json_t *)v, i, one)
        {
            fputs(i ? "," : "", out);
            print_value(one, COLUMN_TEXT, out);
        }
    } else if (json_is_number(v) && kind == COLUMN_SIZE) {
        print_size(json_number_value(v), out);
    } else if (json_is_number(v) && kind == COLUMN_SECONDS) {
        print_seconds(json_number_value(v), out);
    } else if (json_is_number(v) && kind == COLUMN_PERCENT) {
        fprintf(out, "%.1f%%", json_number_value(v));
    } else if (json_is_string(v) && kind == COLUMN_TIME) {
        print_time(json_string_value(v), out);
    } else if (json_is_string(v)) {
        fputs(json_string_value(v), out);
    } else if (json_is_boolean(v)) {
        fputs(json_is_true(v) ? "yes" : "no", out);
    } else if (json_is_integer(v)) {
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        fprintf(out, "%g", json_real_value(v));
    } else if (json_is_object(v)) {
        json_dumpf(v, out, JSON_COMPACT);
    }
}

char *output_text(const json_t *object, const struct column *column)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    print_value(member_of(object, column->member), column->kind, out);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    return text;
}

/* ---- Tables ---- */

/* Columns that a text takes: UTF-8's continuation bytes take none. */
static int width_of(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(const char *text, int width, bool last)
{
    fputs(*text ? text : "-", stdout);
    if (!last)
        printf("%*s", width - width_of(*text ? text : "-") + 2, "");
}

static int table(json_t *items, const struct column *columns, unsigned count)
{
    size_t rows = json_array_size(items);
    char **cell = calloc(rows * count + 1, sizeof(*cell));
    int width[COLUMNS_MAX];
    bool whole = cell;

    for (unsigned c = 0; whole && c < count; c++) {
        width[c] = width_of(columns[c].head);
        for (size_t r = 0; r < rows; r++) {
            char *text = output_text(json_array_get(items, r), &columns[c]);

            cell[r * count + c] = text;
            whole = whole && text;
            if (text && width_of(text) > width[c])
                width[c] = width_of(text);
        }
    }
    for (unsigned c = 0; whole && c < count; c++)
        print_cell(columns[c].head, width[c], c + 1 == count);
    if (whole)
        putchar('\n');
    for (size_t i = 0; cell && i < rows * count; i++) {
        if (whole) {
            print_cell(cell[i], width[i % count], i % count + 1 == count);
            if (i % count + 1 == count)
                putchar('\n');
        }
        free(cell[i]);
    }
    free(cell);
    return whole ? API_DONE : host_fail(API_FAILED, "no memory");
}

/* ---- CSV (RFC 4180): raw values, quoted where they must be ---- */

static void print_csv(const char *text)
{
    /* A spreadsheet would run what begins like a formula. */
    bool formula = *text && strchr("=+-@", *text) && strspn(text, "-0123456789.") != strlen(text);

    if (!formula && !strpbrk(text, ",\"\r\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    if (formula)
        putchar('\'');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static int csv(json_t *items, const struct column *columns, unsigned count)
{
    size_t r;
    json_t *item;

    for (unsigned c = 0; c < count; c++)
        printf("%s%s", columns[c].member, c + 1 == count ? "\r\n" : ",");
    json_array_foreach(items, r, item)
    {
        for (unsigned c = 0; c < count; c++) {
            struct column raw = {columns[c].head, columns[c].member, COLUMN_TEXT};
            char *text = output_text(item, &raw);

            print_csv(text ? text : "");
            fputs(c + 1 == count ? "\r\n" : ",", stdout);
            free(text);
        }
    }
    return API_DONE;
}

int output_json(json_t *value)
{
    return json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) || putchar('\n') < 0
               ? host_fail(API_FAILED, "standard output: cannot be written")
               : API_DONE;
}

int output_list(const struct host_call *call, json_t *items, const struct column *columns)
{
    unsigned count = 0;

    while (count < COLUMNS_MAX && columns[count].head)
        count++;
    if (call->format == FORMAT_JSON)
        return output_json(items);
    return call->format == FORMAT_CSV ? csv(items, columns, count) : table(items, columns, count);
}

int output_object(const struct host_call *call, json_t *object, const struct column *columns)
{
    if (call->format == FORMAT_JSON)
        return output_json(object);
    if (call->format == FORMAT_CSV) {
        json_t *one = json_pack("[O]", object);
        int status = output_list(call, one, columns);

        json_decref(one);
        return status;
    }
    for (; columns->head; columns++) {
        char *text = output_text(object, columns);

        if (text && *text)
            printf("%-14s %s\n", columns->head, text);
        free(text);
    }
    return API_DONE;
}
