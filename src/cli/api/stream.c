/*
 * A WebSocket of the host (RFC 6455): libcurl connects, wslay frames. See api.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <wslay/wslay.h>

#include "cli/api/internal.h"

#define HEAD_MAX 16384
#define SECONDS_MAX 20

struct api_stream {
    struct api *api;
    CURL *handle;
    int fd;
    wslay_event_context_ptr ws;
    bool closed;
    char early[HEAD_MAX]; /* frames that came with the handshake's answer */
    size_t early_length, early_at;
    void (*message)(void *opaque, const void *data, size_t length);
    void *opaque;
};

/* ---- wslay's view of the connection ---- */

static ssize_t on_receive(wslay_event_context_ptr ws, uint8_t *data, size_t room, int flags,
                          void *opaque)
{
    struct api_stream *s = opaque;
    size_t got = 0;

    if (s->early_at < s->early_length) {
        got = s->early_length - s->early_at < room ? s->early_length - s->early_at : room;
        memcpy(data, s->early + s->early_at, got);
        s->early_at += got;
        return (ssize_t)got;
    }
    CURLcode code = s->api->curl.receive(s->handle, data, room, &got);
    if (code == CURLE_OK && got)
        return (ssize_t)got;
    s->closed = s->closed || code != CURLE_AGAIN;
    wslay_event_set_error(ws,
                          code == CURLE_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t on_send(wslay_event_context_ptr ws, const uint8_t *data, size_t length, int flags,
                       void *opaque)
{
    struct api_stream *s = opaque;
    size_t sent = 0;
    CURLcode code = s->api->curl.send(s->handle, data, length, &sent);

    if (code == CURLE_OK)
        return (ssize_t)sent;
    s->closed = s->closed || code != CURLE_AGAIN;
    wslay_event_set_error(ws,
                          code == CURLE_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

/* Masks need not be secret here, only unpredictable (section 10.3). */
static int on_mask(wslay_event_context_ptr ws, uint8_t *out, size_t length, void *opaque)
{
    if (getrandom(out, length, 0) == (ssize_t)length)
        return 0;
    wslay_event_set_error(ws, WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void on_message(wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *m,
                       void *opaque)
{
    struct api_stream *s = opaque;

    if (m->opcode == WSLAY_CONNECTION_CLOSE)
        s->closed = true;
    else if (!wslay_is_ctrl_frame(m->opcode) && s->message)
        s->message(s->opaque, m->msg, m->msg_length);
}

/* ---- The handshake (section 4.1) ---- */

static int wait_for(const struct api_stream *s, short what, struct mull_error *err)
{
    struct pollfd p = {.fd = s->fd, .events = what};

    return poll(&p, 1, SECONDS_MAX * 1000) == 1 ? 0
                                                : mull_fail(err, ETIMEDOUT, "the host is silent");
}

static int send_all(struct api_stream *s, const char *data, size_t length, struct mull_error *err)
{
    while (length) {
        size_t sent = 0;
        CURLcode code = s->api->curl.send(s->handle, data, length, &sent);

        if (code == CURLE_AGAIN && !wait_for(s, POLLOUT, err))
            continue;
        if (code != CURLE_OK)
            return mull_fail(err, EIO, "the host hung up: %s", s->api->curl.text(code));
        data += sent;
        length -= sent;
    }
    return 0;
}

/* The head of the answer; what follows it is frames. */
static int receive_head(struct api_stream *s, struct mull_error *err)
{
    char *end = NULL;

    while (!end) {
        size_t got = 0, room = sizeof(s->early) - 1 - s->early_length;

        if (!room)
            return mull_fail(err, EPROTO, "the host's answer is no HTTP");
        CURLcode code = s->api->curl.receive(s->handle, s->early + s->early_length, room, &got);
        if (code == CURLE_AGAIN) {
            int ret = wait_for(s, POLLIN, err);
            if (ret)
                return ret;
            continue;
        }
        if (code != CURLE_OK || !got)
            return mull_fail(err, EIO, "the host hung up");
        s->early_length += got;
        s->early[s->early_length] = '\0';
        end = strstr(s->early, "\r\n\r\n");
    }
    s->early_at = (size_t)(end - s->early) + 4;
    return 0;
}

static void random_key(char out[25])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char bytes[22];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        memset(bytes, 0, sizeof(bytes));
    for (unsigned i = 0; i < 22; i++) /* 16 bytes in base64: the last digit holds two bits */
        out[i] = digits[i == 21 ? bytes[i] & 0x30 : bytes[i] & 0x3f];
    memcpy(out + 22, "==", 3);
}

static int upgrade(struct api_stream *s, const char *url, struct mull_error *err)
{
    const char *rest = strstr(url, "://") + 3, *path = strchr(rest, '/');
    const char *token = s->api->target.token;
    char key[25], *head = NULL;

    random_key(key);
    if (asprintf(&head,
                 "GET %s HTTP/1.1\r\nHost: %.*s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                 path, (int)(path - rest), rest, key, token ? "Authorization: Bearer " : "",
                 token ? token : "", token ? "\r\n" : "") < 0)
        return mull_fail(err, ENOMEM, "no memory");
    int ret = send_all(s, head, strlen(head), err);
    free(head);
    if (!ret)
        ret = receive_head(s, err);
    if (ret)
        return ret;
    s->api->http = strtol(s->early + strcspn(s->early, " "), NULL, 10);
    if (s->api->http == 101)
        return 0;
    json_t *problem = json_loads(s->early + s->early_at, 0, NULL);
    ret = api_problem(problem, s->api->http, err);
    json_decref(problem);
    s->api->status = s->api->http == 404   ? API_NOT_FOUND
                     : s->api->http == 409 ? API_CONFLICT
                     : s->api->http == 401 ? API_DENIED
                                           : API_FAILED;
    return ret;
}

static int begin(struct api_stream *s, const char *path, struct mull_error *err)
{
    struct api *a = s->api;
    char *url = api_url(a, path);
    curl_socket_t fd = CURL_SOCKET_BAD;

    if (!url || !(s->handle = a->curl.init())) {
        free(url);
        return mull_fail(err, ENOMEM, "no memory");
    }
    api_aim(a, s->handle);
    a->curl.setopt(s->handle, CURLOPT_URL, url);
    a->curl.setopt(s->handle, CURLOPT_CONNECT_ONLY, 1L);
    a->curl.setopt(s->handle, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    CURLcode code = a->curl.perform(s->handle);
    int ret = 0;
    if (code == CURLE_OK)
        code = a->curl.getinfo(s->handle, CURLINFO_ACTIVESOCKET, &fd);
    if (code != CURLE_OK) {
        a->status = API_UNREACHABLE;
        ret = mull_fail(err, ECONNREFUSED, "the host does not answer: %s", a->curl.text(code));
    }
    s->fd = (int)fd;
    if (!ret)
        ret = upgrade(s, url, err);
    free(url);
    return ret;
}

int api_stream_open(struct api *a, const char *path, struct api_stream **out,
                    struct mull_error *err)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_receive,
        .send_callback = on_send,
        .genmask_callback = on_mask,
        .on_msg_recv_callback = on_message,
    };
    struct api_stream *s = calloc(1, sizeof(*s));

    *out = NULL;
    a->status = API_FAILED;
    if (!s)
        return mull_fail(err, ENOMEM, "no memory");
    s->api = a;
    s->fd = -1;
    int ret = begin(s, path, err);
    if (!ret && wslay_event_context_client_init(&s->ws, &callbacks, s))
        ret = mull_fail(err, ENOMEM, "no memory");
    if (ret) {
        api_stream_close(s);
        return ret;
    }
    a->status = API_DONE;
    *out = s;
    return 0;
}

int api_stream_fd(const struct api_stream *s)
{
    return s->fd;
}

int api_stream_send(struct api_stream *s, const void *data, size_t length)
{
    struct wslay_event_msg m = {.opcode = WSLAY_BINARY_FRAME, .msg = data, .msg_length = length};

    if (s->closed)
        return -EPIPE;
    if (length && wslay_event_queue_msg(s->ws, &m))
        return -ENOMEM;
    return wslay_event_send(s->ws) || s->closed ? -EPIPE : 0;
}

int api_stream_receive(struct api_stream *s,
                       void (*message)(void *opaque, const void *data, size_t length), void *opaque)
{
    s->message = message;
    s->opaque = opaque;
    int ret = s->closed ? -1 : wslay_event_recv(s->ws);

    if (!ret && wslay_event_want_write(s->ws)) /* a pong, or the answer to a close */
        ret = wslay_event_send(s->ws);
    return ret || s->closed ? -EPIPE : 0;
}

void api_stream_close(struct api_stream *s)
{
    if (!s)
        return;
    if (s->ws && !s->closed && !wslay_event_queue_close(s->ws, 1000, NULL, 0))
        wslay_event_send(s->ws);
    if (s->ws)
        wslay_event_context_free(s->ws);
    if (s->handle)
        s->api->curl.cleanup(s->handle);
    free(s);
}
