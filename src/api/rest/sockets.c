/*
 * WebSockets (RFC 6455, by wslay): the stream of events, and consoles. All in the loop's thread; a
 * peer that does not read is dropped when too much waits for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "api/rest/rest.h"
#include "host/console.h"
#include "host/events.h"
#include "host/store/store.h"

#define SOCKETS_MAX 256
#define TICKETS_MAX 256
#define TICKET_SECONDS 30
#define MESSAGE_MAX 65536u
#define WAITING_MAX (4u << 20) /* bytes for one peer */
#define RELAY_PAUSE (1u << 20)
#define PING_NS 30000000000ull
#define REPLAY_MAX 1000

enum socket_kind { SOCKET_EVENTS, SOCKET_SERIAL, SOCKET_VNC };

struct ws {
    struct rest *rest;
    enum socket_kind kind;
    char machine[HOST_ID_MAX];
    struct principal who;
    uint64_t after, last; /* events */
    bool replay;
    int fd;
    struct MHD_UpgradeResponseHandle *handle;
    struct mull_source *source;
    wslay_event_context_ptr frames;
    char *early; /* bytes that came with the request */
    size_t early_len;
    bool closing;
    struct console_viewer viewer;
    int relay_fd; /* VNC */
    struct mull_source *relay;
    bool relay_paused;
    struct ws *next;
};

struct ticket {
    char text[65];
    char machine[HOST_ID_MAX];
    enum socket_kind kind;
    struct principal who;
    double expires;
};

struct sockets {
    struct ws *first;
    _Atomic unsigned count;
    struct ticket ticket[TICKETS_MAX]; /* the host's lock */
    struct mull_timer *timer;
};

/* ---- Sending and receiving ---- */

static ssize_t ws_send(wslay_event_context_ptr frames, const uint8_t *data, size_t len, int flags,
                       void *opaque)
{
    struct ws *ws = opaque;
    ssize_t n;
    do
        n = send(ws->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        wslay_event_set_error(frames,
                              errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return n;
}

static ssize_t ws_recv(wslay_event_context_ptr frames, uint8_t *buf, size_t len, int flags,
                       void *opaque)
{
    struct ws *ws = opaque;
    ssize_t n;
    if (ws->early_len) {
        n = (ssize_t)(len < ws->early_len ? len : ws->early_len);
        memcpy(buf, ws->early, (size_t)n);
        ws->early_len -= (size_t)n;
        memmove(ws->early, ws->early + n, ws->early_len);
        return n;
    }
    do
        n = recv(ws->fd, buf, len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    if (n <= 0) {
        wslay_event_set_error(frames, WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
    }
    return n;
}

static void free_ws(struct ws *ws)
{
    struct sockets *s = ws->rest->sockets;
    for (struct ws **at = &s->first; *at; at = &(*at)->next) {
        if (*at == ws) {
            *at = ws->next;
            break;
        }
    }
    console_detach(&ws->viewer);
    mull_source_remove(ws->source);
    mull_source_remove(ws->relay);
    if (ws->relay_fd >= 0)
        close(ws->relay_fd);
    if (ws->frames)
        wslay_event_context_free(ws->frames);
    MHD_upgrade_action(ws->handle, MHD_UPGRADE_ACTION_CLOSE);
    free(ws->early);
    free(ws);
    s->count--;
}

/* What waits is sent as far as it goes. A peer that has gone is marked, not freed: callers may be
 * in the middle of a list. */
static void flush(struct ws *ws)
{
    if (ws->closing)
        return;
    if (wslay_event_want_write(ws->frames) && wslay_event_send(ws->frames))
        ws->closing = true;
    if (wslay_event_get_queued_msg_length(ws->frames) > WAITING_MAX)
        ws->closing = true;
    if (wslay_event_get_close_sent(ws->frames) && wslay_event_get_close_received(ws->frames))
        ws->closing = true;
    bool waits = wslay_event_want_write(ws->frames);
    mull_source_modify(ws->source, waits || ws->closing ? EPOLLIN | EPOLLOUT : EPOLLIN);
    if (ws->relay && ws->relay_paused &&
        wslay_event_get_queued_msg_length(ws->frames) < RELAY_PAUSE / 2) {
        ws->relay_paused = false;
        mull_source_modify(ws->relay, EPOLLIN);
    }
}

static void queue(struct ws *ws, uint8_t opcode, const void *data, size_t len)
{
    struct wslay_event_msg message = {opcode, data, len};
    if (!ws->closing && wslay_event_queue_msg(ws->frames, &message))
        ws->closing = true;
    flush(ws);
}

static void say_goodbye(struct ws *ws, uint16_t code, const char *why)
{
    if (!ws->closing)
        wslay_event_queue_close(ws->frames, code, (const uint8_t *)why, strlen(why));
    flush(ws);
}

static void ws_message(wslay_event_context_ptr frames,
                       const struct wslay_event_on_msg_recv_arg *arg, void *opaque)
{
    struct ws *ws = opaque;
    if (wslay_is_ctrl_frame(arg->opcode))
        return;
    if (ws->kind == SOCKET_SERIAL) {
        console_type(&ws->viewer, arg->msg, arg->msg_length);
    } else if (ws->kind == SOCKET_VNC && arg->msg_length) {
        /* A server that does not take its viewer's few bytes is stuck. */
        if (send(ws->relay_fd, arg->msg, arg->msg_length, MSG_DONTWAIT | MSG_NOSIGNAL) !=
            (ssize_t)arg->msg_length)
            ws->closing = true;
    }
}

static void ws_ready(void *opaque, uint32_t events)
{
    struct ws *ws = opaque;
    if (!ws->closing && events & (EPOLLIN | EPOLLHUP | EPOLLERR) && wslay_event_recv(ws->frames))
        ws->closing = true;
    flush(ws);
    if (ws->closing)
        free_ws(ws);
}

/* ---- Consoles ---- */

static void console_data(struct console_viewer *viewer, const void *bytes, size_t len)
{
    struct ws *ws = (struct ws *)((char *)viewer - offsetof(struct ws, viewer));
    queue(ws, WSLAY_BINARY_FRAME, bytes, len);
}

static void console_gone(struct console_viewer *viewer)
{
    struct ws *ws = (struct ws *)((char *)viewer - offsetof(struct ws, viewer));
    say_goodbye(ws, WSLAY_CODE_GOING_AWAY, "the machine has ended");
}

static void relay_ready(void *opaque, uint32_t events)
{
    struct ws *ws = opaque;
    char bytes[32768];
    ssize_t n = recv(ws->relay_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        queue(ws, WSLAY_BINARY_FRAME, bytes, (size_t)n);
        if (wslay_event_get_queued_msg_length(ws->frames) > RELAY_PAUSE) {
            ws->relay_paused = true;
            mull_source_modify(ws->relay, 0);
        }
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        mull_source_remove(ws->relay);
        ws->relay = NULL;
        say_goodbye(ws, WSLAY_CODE_GOING_AWAY, "the machine has ended");
    }
}

static int connect_relay(struct ws *ws)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = vm_file(ws->rest->host, ws->machine, "vnc.sock");
    int ret = -1;
    ws->relay_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (path && strlen(path) < sizeof(address.sun_path)) {
        strcpy(address.sun_path, path);
        ret = connect(ws->relay_fd, (struct sockaddr *)&address, sizeof(address));
    }
    free(path);
    return ret ? ret
               : mull_loop_watch(ws->rest->host->loop, ws->relay_fd, EPOLLIN, relay_ready, ws,
                                 &ws->relay, NULL);
}

/* ---- Events ---- */

struct news {
    struct rest *rest;
    char *text;
    uint64_t id;
    bool kept; /* in the database, too: a replay may have brought it already */
    bool global;
    enum host_kind kind;
    char object[HOST_NAME_MAX];
};

static bool sees(struct ws *ws, const struct news *news)
{
    if (news->global)
        return ws->who.role >= ROLE_VIEWER;
    return auth_sees(ws->rest->host, &ws->who, news->kind, news->object);
}

static void deliver(void *opaque)
{
    struct news *news = opaque;
    struct host *host = news->rest->host;
    host_lock(host);
    for (struct ws *ws = news->rest->sockets->first; ws; ws = ws->next) {
        if (ws->kind != SOCKET_EVENTS || (news->kept && news->id <= ws->last) || !sees(ws, news))
            continue;
        if (news->kept)
            ws->last = news->id;
        queue(ws, WSLAY_TEXT_FRAME, news->text, strlen(news->text));
    }
    host_unlock(host);
    free(news->text);
    free(news);
}

/* Whose an event is: "machine:UUID" and so on. */
static void find_object(struct news *news, const char *object)
{
    const char *colon = strchr(object, ':');
    news->global = true;
    for (unsigned i = 0; colon && i < HOST_KINDS; i++) {
        size_t n = (size_t)(colon - object);
        if (strlen(host_kind_names[i]) == n && !strncmp(object, host_kind_names[i], n)) {
            news->kind = (enum host_kind)i;
            news->global = false;
            snprintf(news->object, sizeof(news->object), "%s", colon + 1);
        }
    }
}

static void heard(void *opaque, json_t *event)
{
    struct rest *rest = opaque;
    const char *type = host_text(event, "type");
    struct news *news = rest->sockets->count ? calloc(1, sizeof(*news)) : NULL;
    if (!news)
        return;
    news->rest = rest;
    news->text = json_dumps(event, JSON_COMPACT);
    news->id = (uint64_t)json_integer_value(json_object_get(event, "id"));
    news->kept = strcmp(type, "changed") && strcmp(type, "removed");
    find_object(news, host_text(event, "object"));
    if (!news->text || mull_loop_post(rest->host->loop, deliver, news)) {
        free(news->text);
        free(news);
    }
}

static void replay(struct ws *ws)
{
    struct events_filter filter = {.after = ws->after, .ascending = true, .limit = REPLAY_MAX};
    json_t *list = events_list(ws->rest->host, &filter), *event;
    size_t i;
    json_array_foreach(list, i, event)
    {
        struct news news = {.id = (uint64_t)json_integer_value(json_object_get(event, "id"))};
        find_object(&news, host_text(event, "object"));
        ws->last = news.id;
        char *text = sees(ws, &news) ? json_dumps(event, JSON_COMPACT) : NULL;
        if (text)
            queue(ws, WSLAY_TEXT_FRAME, text, strlen(text));
        free(text);
    }
    json_decref(list);
}

/* The peer knows by the first event that it hears everything from now on: the answer to its request
 * was on its way before that. */
static void begin_events(struct ws *ws)
{
    if (ws->replay)
        replay(ws);
    json_t *greeting = events_greeting(ws->rest->host);
    char *text = greeting ? json_dumps(greeting, JSON_COMPACT) : NULL;
    if (text)
        queue(ws, WSLAY_TEXT_FRAME, text, strlen(text));
    json_decref(greeting);
    free(text);
}

/* ---- Beginning ---- */

static int begin_kind(struct ws *ws)
{
    struct host *host = ws->rest->host;
    int ret = 0;
    host_lock(host);
    struct vm *vm = *ws->machine && store_get(host->store, KIND_MACHINE, ws->machine)
                        ? vm_of(host, ws->machine)
                        : NULL;
    if (ws->kind == SOCKET_EVENTS)
        begin_events(ws);
    else if (ws->kind == SOCKET_SERIAL)
        ret = vm ? console_attach(vm, &ws->viewer) : -1;
    else if (ws->kind == SOCKET_VNC)
        ret = vm && vm->pidfd >= 0 ? connect_relay(ws) : -1;
    host_unlock(host);
    return ret;
}

static void ws_begin(void *opaque)
{
    struct ws *ws = opaque;
    struct sockets *s = ws->rest->sockets;
    struct wslay_event_callbacks callbacks = {
        .recv_callback = ws_recv, .send_callback = ws_send, .on_msg_recv_callback = ws_message};
    ws->next = s->first;
    s->first = ws;
    fcntl(ws->fd, F_SETFL, fcntl(ws->fd, F_GETFL) | O_NONBLOCK);
    if (wslay_event_context_server_init(&ws->frames, &callbacks, ws) ||
        mull_loop_watch(ws->rest->host->loop, ws->fd, EPOLLIN, ws_ready, ws, &ws->source, NULL)) {
        free_ws(ws);
        return;
    }
    wslay_event_config_set_max_recv_msg_length(ws->frames, MESSAGE_MAX);
    if (begin_kind(ws))
        say_goodbye(ws, WSLAY_CODE_GOING_AWAY, "the machine does not run");
    if (ws->early_len)
        ws_ready(ws, EPOLLIN);
    else if (ws->closing)
        free_ws(ws);
}

static void upgraded(struct request *r, int fd, const char *extra, size_t extra_len,
                     struct MHD_UpgradeResponseHandle *handle)
{
    struct ws *ws = r->upgrade;
    r->upgrade = NULL; /* it lives longer than the request */
    ws->fd = fd;
    ws->handle = handle;
    ws->early = extra_len ? malloc(extra_len) : NULL;
    if (ws->early) {
        memcpy(ws->early, extra, extra_len);
        ws->early_len = extra_len;
    }
    ws->rest->sockets->count++;
    if (mull_loop_post(ws->rest->host->loop, ws_begin, ws)) {
        ws->rest->sockets->count--;
        MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
        free(ws->early);
        free(ws);
    }
}

static struct ws *ws_new(struct request *r, enum socket_kind kind)
{
    struct ws *ws = NULL;
    if (r->rest->sockets->count >= SOCKETS_MAX)
        reply_error(r, HOST_UNAVAILABLE, NULL, "%d WebSockets are open already", SOCKETS_MAX);
    else if (!(ws = calloc(1, sizeof(*ws))))
        reply_error(r, HOST_UNAVAILABLE, NULL, "no memory");
    if (!ws)
        return NULL;
    ws->rest = r->rest;
    ws->kind = kind;
    ws->who = r->who;
    ws->relay_fd = ws->fd = -1;
    ws->viewer.data = console_data;
    ws->viewer.gone = console_gone;
    r->upgrade = ws;
    r->upgraded = upgraded;
    return ws;
}

void op_event_stream(struct request *r)
{
    struct ws *ws = ws_new(r, SOCKET_EVENTS);
    if (!ws)
        return;
    ws->replay = query(r, "after") != NULL;
    ws->after = query_number(r, "after", 0);
}

/* ---- Tickets: a browser can give a WebSocket no header ---- */

void op_open_console(struct request *r)
{
    struct sockets *s = r->rest->sockets;
    bool vnc = !strcmp(host_text(r->json, "type"), "vnc");
    struct vm *vm = vm_of(r->host, r->param[0]);
    struct ticket *t = &s->ticket[0];
    char url[128], expires[32];
    if (!vm || vm->pidfd < 0) {
        reply_error(r, HOST_CONFLICT, NULL, "the machine does not run");
        return;
    }
    char *path = vm_file(r->host, vm->id, "vnc.sock");
    bool has_screen = path && !access(path, F_OK);
    free(path);
    if (vnc && !has_screen) {
        reply_error(r, HOST_CONFLICT, NULL, "the machine has no screen; use its serial console");
        return;
    }
    for (unsigned i = 1; i < TICKETS_MAX; i++)
        if (s->ticket[i].expires < t->expires)
            t = &s->ticket[i];
    host_random_hex(t->text, 32);
    snprintf(t->machine, sizeof(t->machine), "%s", vm->id);
    t->kind = vnc ? SOCKET_VNC : SOCKET_SERIAL;
    t->who = r->who;
    t->expires = host_now() + TICKET_SECONDS;
    snprintf(url, sizeof(url), "/api/v1/consoles/%s", t->text);
    host_time(t->expires, expires);
    reply(r, 201, json_pack("{s:s, s:s, s:s}", "ticket", t->text, "url", url, "expires", expires));
}

void op_console_socket(struct request *r)
{
    struct sockets *s = r->rest->sockets;
    for (unsigned i = 0; i < TICKETS_MAX; i++) {
        struct ticket *t = &s->ticket[i];
        if (t->expires < host_now() || strcmp(t->text, r->param[0]))
            continue;
        struct ws *ws = ws_new(r, t->kind);
        if (ws) {
            ws->who = t->who;
            snprintf(ws->machine, sizeof(ws->machine), "%s", t->machine);
        }
        memset(t, 0, sizeof(*t)); /* once */
        return;
    }
    reply_error(r, HOST_UNAUTHENTICATED, NULL, "the ticket is wrong, used or has expired");
}

/* ---- Time ---- */

/* Peers that are silent are asked whether they are there; whose login has ended is let go. */
static void timer_fired(void *opaque)
{
    struct rest *rest = opaque;
    struct sockets *s = rest->sockets;
    host_lock(rest->host);
    for (struct ws *ws = s->first; ws; ws = ws->next) {
        if (!auth_still_good(rest->host, &ws->who))
            say_goodbye(ws, WSLAY_CODE_POLICY_VIOLATION, "the login has ended");
        else
            queue(ws, WSLAY_PING, "", 0);
    }
    host_unlock(rest->host);
    mull_timer_arm(s->timer, mull_now_ns() + PING_NS);
}

int sockets_open(struct rest *rest, struct mull_error *err)
{
    struct sockets *s = rest->sockets = calloc(1, sizeof(*s));
    if (!s || !(s->timer = mull_timer_create(rest->host->loop, timer_fired, rest)))
        return mull_fail(err, ENOMEM, "WebSockets: no memory");
    mull_timer_arm(s->timer, mull_now_ns() + PING_NS);
    host_lock(rest->host);
    events_listen(rest->host, heard, rest);
    host_unlock(rest->host);
    return 0;
}

void sockets_close(struct rest *rest)
{
    struct sockets *s = rest->sockets;
    if (!s)
        return;
    host_lock(rest->host);
    events_listen(rest->host, NULL, NULL);
    host_unlock(rest->host);
    while (s->first)
        free_ws(s->first);
    mull_timer_destroy(s->timer);
    free(s);
    rest->sockets = NULL;
}
