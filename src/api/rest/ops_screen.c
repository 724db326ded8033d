/*
 * What machines show, as a picture and as text, and keys for them.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/rest/ops.h"
#include "host/supervisor.h"
#include "vmm/picture.h"
#include "vmm/status.h"

#define TYPE_PAUSE_NS 10000000 /* between characters: as a fast typist */
#define TYPE_WAITS 500u        /* a guest may be slow to read its keyboard */

/* ---- The picture, without the lock ---- */

static int fetch(struct request *r, struct vmm_picture *picture, struct host_problem *why)
{
    enum vmm_picture_state state = VMM_PICTURE_MORE;
    while (state == VMM_PICTURE_MORE) {
        json_t *answer = NULL;
        if (vm_call(r->host, r->param[0], "screenshot", vmm_picture_params(picture), &answer, why))
            return -1;
        state = vmm_picture_add(picture, answer);
        json_decref(answer);
    }
    return state == VMM_PICTURE_WHOLE
               ? 0
               : host_problem(why, HOST_CONFLICT, NULL, "the screen cannot be read now");
}

void op_screenshot(struct request *r)
{
    struct vmm_picture picture = {0};
    struct host_problem why = {0};
    if (fetch(r, &picture, &why)) {
        reply_problem(r, &why);
    } else if ((r->text = vmm_picture_png(&picture, &r->text_len))) {
        r->type = "image/png";
        r->status = 200;
    } else {
        reply_error(r, HOST_INTERNAL, NULL, "the picture cannot be made");
    }
    vmm_picture_free(&picture);
}

/* ---- The text ---- */

void op_screen_text(struct request *r)
{
    struct host_problem p = {0};
    json_t *answer = NULL;
    if (vm_call(r->host, r->param[0], "screen", NULL, &answer, &p)) {
        reply_problem(r, &p);
        return;
    }
    const char *text = json_string_value(json_object_get(answer, "text"));
    if (text)
        reply(r, 200, json_pack("{s:s}", "text", text));
    else
        reply_error(r, HOST_CONFLICT, NULL,
                    "the machine shows graphics, not text; ask for a screenshot");
    json_decref(answer);
}

/* ---- The keyboard ---- */

/* A character after the other, as the guest reads them. */
static int type_text(struct request *r, const char *text, const char *keymap,
                     struct host_problem *p)
{
    unsigned waited = 0;
    while (*text && waited < TYPE_WAITS) {
        json_t *result = NULL;
        json_t *params = json_pack("{s:s, s:s*}", "text", text, "keymap", keymap);
        if (vm_call(r->host, r->param[0], "sendkey", params, &result, p))
            return -1;
        json_int_t typed = json_integer_value(json_object_get(result, "typed"));
        json_decref(result);
        waited = typed > 0 ? 0 : waited + 1;
        text += typed <= 0 ? 0 : (size_t)typed < strlen(text) ? (size_t)typed : strlen(text);
        if (*text)
            nanosleep(&(struct timespec){0, TYPE_PAUSE_NS}, NULL);
    }
    if (*text)
        return host_problem(p, HOST_CONFLICT, NULL, "the guest does not read its keyboard");
    return 0;
}

void op_keys(struct request *r)
{
    json_t *keys = json_object_get(r->json, "keys");
    const char *text = host_text(r->json, "text");
    struct host_problem p = {0};
    if (!keys == !*text) {
        reply_error(r, HOST_INVALID, NULL, "give either keys or text");
        return;
    }
    int ret =
        keys ? vm_call(r->host, r->param[0], "sendkey", json_pack("{s:O}", "keys", keys), NULL, &p)
             : type_text(r, text, json_string_value(json_object_get(r->json, "keymap")), &p);
    if (ret)
        reply_problem(r, &p);
    else
        reply(r, 204, NULL);
}
