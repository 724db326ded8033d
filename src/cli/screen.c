/*
 * `mullion screen`, `screenshot` and `sendkey`: what a running machine shows, and keys for it, over
 * its control socket.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "vmm/picture.h"

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

static int fetch(struct client *client, struct vmm_picture *picture)
{
    enum vmm_picture_state state = VMM_PICTURE_MORE;

    while (state == VMM_PICTURE_MORE) {
        json_t *answer = client_call_with(client, "screenshot", vmm_picture_params(picture));
        if (!answer)
            return VMM_STATUS_HOST_ERROR;
        state = vmm_picture_add(picture, answer);
        json_decref(answer);
    }
    return state == VMM_PICTURE_WHOLE
               ? -1
               : cli_fail(VMM_STATUS_HOST_ERROR, "screenshot: the screen cannot be read now");
}

static int write_png(const char *path, const struct vmm_picture *picture)
{
    size_t size;
    void *png = vmm_picture_png(picture, &size);
    FILE *f = png ? fopen(path, "wbe") : NULL;
    bool ok = f && fwrite(png, 1, size, f) == size;

    if (f && fclose(f))
        ok = false;
    int status = ok ? 0 : cli_fail(VMM_STATUS_HOST_ERROR, "%s: %s", path, strerror(errno));
    free(png);
    return status;
}

int cli_screenshot(int argc, char **argv)
{
    struct client client;
    struct vmm_picture picture = {0};
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
    status = fetch(&client, &picture);
    client_close(&client);
    if (status < 0)
        status = write_png(argv[3], &picture);
    vmm_picture_free(&picture);
    return status;
}
