/*
 * `mullion screen`, `screenshot` and `sendkey`: what a running machine shows, and keys for it, over
 * its control socket. Knows PNG as far as it writes it (W3C PNG, third edition).
 */
#include <errno.h>
#include <libdeflate.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"

#define PIXELS_MAX (1u << 24)
#define TYPE_PAUSE_NS 10000000 /* between characters: as a fast typist */
#define TYPE_WAITS 2000u       /* a guest may be slow to read its keyboard */

static const char screen_usage[] = "Usage: mullion screen MACHINE\n"
                                   "\n"
                                   "Prints what a machine shows in a text mode.\n";
static const char shot_usage[] = "Usage: mullion screenshot MACHINE --output FILE.png\n"
                                 "\n"
                                 "Writes a picture of what a machine shows.\n";
static const char keys_usage[] =
    "Usage: mullion sendkey MACHINE KEY...\n"
    "       mullion sendkey MACHINE --text TEXT [--keymap LAYOUT]\n"
    "\n"
    "Presses keys, one after the other: a to z, 0 to 9, ret, esc, tab, spc, backspace, up, down,\n"
    "left, right, home, end, pgup, pgdn, insert, delete, f1 to f12; ctrl-alt-delete for several\n"
    "at once. Or types a text, for a guest whose keyboard layout is LAYOUT (us).\n";

static int check(int argc, char **argv, int least, const char *usage)
{
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (argc < least || argv[1][0] == '-') {
        fputs(usage, stderr);
        return VMM_STATUS_USAGE;
    }
    return -1;
}

int cli_screen(int argc, char **argv)
{
    struct client client;
    int status = check(argc, argv, 2, screen_usage);

    if (status >= 0 || (status = client_connect(&client, argv[1])) >= 0)
        return status;
    json_t *result = client_call(&client, "screen");
    status = result ? 0 : VMM_STATUS_HOST_ERROR;
    const char *text = json_string_value(json_object_get(result, "text"));
    if (text)
        fputs(text, stdout);
    else if (result)
        status = cli_fail(VMM_STATUS_HOST_ERROR,
                          "screen: %s shows graphics; use mullion screenshot", argv[1]);
    json_decref(result);
    client_close(&client);
    return status;
}

/* Give the machine a character after the other, as the guest reads them. */
static int type_text(struct client *client, const char *text, const char *keymap)
{
    const struct timespec pause = {.tv_nsec = TYPE_PAUSE_NS};
    unsigned waited = 0;

    while (*text && waited < TYPE_WAITS) {
        json_t *params = json_pack("{s:s, s:s*}", "text", text, "keymap", keymap);
        json_t *result = params ? client_call_with(client, "sendkey", params) : NULL;
        if (!params)
            return cli_fail(VMM_STATUS_HOST_ERROR, "sendkey: the text must be UTF-8");
        if (!result)
            return VMM_STATUS_HOST_ERROR;
        size_t typed = (size_t)json_integer_value(json_object_get(result, "typed"));
        json_decref(result);
        waited = typed ? 0 : waited + 1;
        text += typed < strlen(text) ? typed : strlen(text);
        if (*text)
            nanosleep(&pause, NULL);
    }
    return *text ? cli_fail(VMM_STATUS_HOST_ERROR, "sendkey: the guest does not read its keyboard")
                 : 0;
}

static int sendkey_text(int argc, char **argv)
{
    struct client client;

    if (argc != 4 && (argc != 6 || strcmp(argv[4], "--keymap"))) {
        fputs(keys_usage, stderr);
        return VMM_STATUS_USAGE;
    }
    int status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    status = type_text(&client, argv[3], argc == 6 ? argv[5] : NULL);
    client_close(&client);
    return status;
}

int cli_sendkey(int argc, char **argv)
{
    struct client client;
    int status = check(argc, argv, 3, keys_usage);

    if (status < 0 && !strcmp(argv[2], "--text"))
        return sendkey_text(argc, argv);
    if (status >= 0 || (status = client_connect(&client, argv[1])) >= 0)
        return status;
    json_t *keys = json_array();
    for (int i = 2; i < argc; i++)
        json_array_append_new(keys, json_string(argv[i]));
    json_t *result = client_call_with(&client, "sendkey", json_pack("{s:o}", "keys", keys));
    json_decref(result);
    client_close(&client);
    return result ? 0 : VMM_STATUS_HOST_ERROR;
}

/* ---- The picture ---- */

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

/* @return bytes written, at most @room */
static size_t decode(const char *text, uint8_t *to, size_t room)
{
    size_t n = 0;
    uint32_t bits = 0;
    unsigned have = 0;

    for (; *text && digit(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)digit(*text);
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (n < room)
                to[n++] = (uint8_t)(bits >> have);
        }
    }
    return n;
}

struct picture {
    unsigned width, height;
    uint8_t *lines; /* each with a filter byte before it, as PNG wants them */
};

/* One answer's rows. @return how many; 0: the machine changed its size, or nonsense came */
static unsigned take_rows(struct picture *p, json_t *answer, unsigned row)
{
    unsigned width = (unsigned)json_integer_value(json_object_get(answer, "width"));
    unsigned height = (unsigned)json_integer_value(json_object_get(answer, "height"));
    unsigned rows = (unsigned)json_integer_value(json_object_get(answer, "rows"));
    const char *data = json_string_value(json_object_get(answer, "data"));

    if (!width || !height || width > PIXELS_MAX / height || !rows || !data)
        return 0;
    if (!p->lines) {
        p->width = width;
        p->height = height;
        p->lines = calloc(height, 3ul * width + 1);
    }
    if (!p->lines || width != p->width || height != p->height || rows > height - row)
        return 0;
    size_t line = 3ul * width;
    uint8_t *rgb = malloc(line * rows);
    bool whole = rgb && decode(data, rgb, line * rows) == line * rows;
    for (unsigned i = 0; whole && i < rows; i++)
        memcpy(p->lines + (row + i) * (line + 1) + 1, rgb + i * line, line);
    free(rgb);
    return whole ? rows : 0;
}

static int fetch(struct client *client, struct picture *p)
{
    for (unsigned row = 0; !p->lines || row < p->height;) {
        json_t *answer = client_call_with(client, "screenshot",
                                          json_pack("{s:i, s:i}", "row", (int)row, "rows", 4096));
        if (!answer)
            return VMM_STATUS_HOST_ERROR;
        unsigned rows = take_rows(p, answer, row);
        json_decref(answer);
        if (!rows)
            return cli_fail(VMM_STATUS_HOST_ERROR,
                            "screenshot: the screen has changed its size; try again");
        row += rows;
    }
    return -1;
}

static void put32(uint8_t *to, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = (uint8_t)(v >> (24 - 8 * i));
}

static bool chunk(FILE *f, const char *type, const void *data, size_t size)
{
    uint8_t head[8], tail[4];

    put32(head, (uint32_t)size);
    memcpy(head + 4, type, 4);
    put32(tail, libdeflate_crc32(libdeflate_crc32(0, type, 4), data, size));
    return fwrite(head, 8, 1, f) == 1 && (!size || fwrite(data, size, 1, f) == 1) &&
           fwrite(tail, 4, 1, f) == 1;
}

static bool write_png(FILE *f, const struct picture *p)
{
    size_t size = p->height * (3ul * p->width + 1);
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    size_t room = c ? libdeflate_zlib_compress_bound(c, size) : 0;
    uint8_t *packed = c ? malloc(room) : NULL, header[13] = {0};
    size_t n = packed ? libdeflate_zlib_compress(c, p->lines, size, packed, room) : 0;

    put32(header, p->width);
    put32(header + 4, p->height);
    header[8] = 8; /* bits */
    header[9] = 2; /* RGB */
    bool ok = n && fwrite("\x89PNG\r\n\x1a\n", 8, 1, f) == 1 &&
              chunk(f, "IHDR", header, sizeof(header)) && chunk(f, "IDAT", packed, n) &&
              chunk(f, "IEND", "", 0);
    free(packed);
    if (c)
        libdeflate_free_compressor(c);
    return ok;
}

int cli_screenshot(int argc, char **argv)
{
    struct client client;
    struct picture p = {0};
    int status = check(argc, argv, 4, shot_usage);

    if (status >= 0)
        return status;
    if (argc != 4 || strcmp(argv[2], "--output")) {
        fputs(shot_usage, stderr);
        return VMM_STATUS_USAGE;
    }
    status = client_connect(&client, argv[1]);
    if (status >= 0)
        return status;
    status = fetch(&client, &p);
    client_close(&client);
    if (status < 0) {
        FILE *f = fopen(argv[3], "wbe");
        bool ok = f && write_png(f, &p);
        if (f && fclose(f))
            ok = false;
        status = ok ? 0 : cli_fail(VMM_STATUS_HOST_ERROR, "%s: %s", argv[3], strerror(errno));
    }
    free(p.lines);
    return status;
}
