/*
 * The NBD server's side of the handshake: options and their replies (proto, "Handshake phase").
 * Knows exports by their names and sizes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/nbd/server_private.h"

static int reply(struct nbd_client *c, uint32_t type, const void *data, uint32_t length)
{
    uint8_t head[20], *copy = NULL;

    mull_put_be64(head, NBD_OPTION_REPLY_MAGIC);
    mull_put_be32(head + 8, c->option);
    mull_put_be32(head + 12, type);
    mull_put_be32(head + 16, length);
    if (length) {
        copy = malloc(length);
        if (!copy) {
            nbd_drop(c, "out of memory");
            return -1;
        }
        memcpy(copy, data, length);
    }
    return nbd_send(c, head, sizeof(head), copy, length, copy, NULL);
}

static void refuse(struct nbd_client *c, uint32_t type, const char *why)
{
    reply(c, type, why, (uint32_t)strlen(why));
}

void nbd_greet(struct nbd_client *c)
{
    uint8_t hello[18];

    mull_put_be64(hello, NBD_MAGIC);
    mull_put_be64(hello + 8, NBD_OPTION_MAGIC);
    mull_put_be16(hello + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_send(c, hello, sizeof(hello), NULL, 0, NULL, NULL);
    nbd_expect(c, NBD_PHASE_FLAGS, c->header, 4);
}

static void next_option(struct nbd_client *c)
{
    free(c->option_data);
    c->option_data = NULL;
    nbd_expect(c, NBD_PHASE_OPTION, c->header, 16);
}

void nbd_got_flags(struct nbd_client *c)
{
    uint32_t flags = mull_be32(c->header);

    if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        nbd_drop(c, "unknown handshake flags");
        return;
    }
    c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    next_option(c);
}

void nbd_got_option(struct nbd_client *c)
{
    c->option = mull_be32(c->header + 8);
    c->option_length = mull_be32(c->header + 12);
    if (mull_be64(c->header) != NBD_OPTION_MAGIC) {
        nbd_drop(c, "wrong magic number in an option");
        return;
    }
    if (++c->options > NBD_OPTIONS_MAX) {
        nbd_drop(c, "too many options");
        return;
    }
    if (c->option_length > NBD_OPTION_DATA_MAX) {
        nbd_drop(c, "an option is too long");
        return;
    }
    free(c->option_data); /* STARTTLS leaves its own behind */
    c->option_data = malloc(c->option_length + 1);
    if (!c->option_data) {
        nbd_drop(c, "out of memory");
        return;
    }
    nbd_expect(c, NBD_PHASE_OPTION_DATA, c->option_data, c->option_length);
}

static const struct mull_nbd_export *find_export(const struct nbd_client *c, const uint8_t *name,
                                                 uint32_t length)
{
    const struct mull_nbd_options *o = &c->server->o;
    for (int i = 0; i < o->nexports; i++)
        if (strlen(o->exports[i].name) == length && !memcmp(o->exports[i].name, name, length))
            return &o->exports[i];
    return NULL;
}

static uint16_t export_flags(const struct nbd_client *c, const struct mull_nbd_export *e)
{
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    flags |= e->readonly
                 ? NBD_FLAG_READ_ONLY
                 : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    if (c->structured)
        flags |= NBD_FLAG_SEND_DF;
    return (uint16_t)flags;
}

static void begin_transmission(struct nbd_client *c, const struct mull_nbd_export *e)
{
    free(c->option_data);
    c->option_data = NULL;
    c->export = e;
    if (c->context_export != e)
        c->ncontexts = 0;
    nbd_expect(c, NBD_PHASE_REQUEST, c->header, NBD_REQUEST_SIZE);
}

/* "NBD_OPT_EXPORT_NAME": there is no reply that says no. */
static void export_name(struct nbd_client *c)
{
    static const uint8_t zeroes[124];
    const struct mull_nbd_export *e = find_export(c, c->option_data, c->option_length);
    uint8_t head[10];

    if (!e) {
        nbd_drop(c, "asked for an export that there is not");
        return;
    }
    mull_put_be64(head, mull_block_size(e->block));
    mull_put_be16(head + 8, export_flags(c, e));
    nbd_send(c, head, sizeof(head), zeroes, c->no_zeroes ? 0 : sizeof(zeroes), NULL, NULL);
    begin_transmission(c, e);
}

static void list(struct nbd_client *c)
{
    const struct mull_nbd_options *o = &c->server->o;

    if (c->option_length) {
        refuse(c, NBD_REP_ERR_INVALID, "LIST has no data");
        return;
    }
    for (int i = 0; i < o->nexports; i++) {
        uint8_t data[4 + NBD_NAME_MAX];
        size_t length = strnlen(o->exports[i].name, NBD_NAME_MAX);
        mull_put_be32(data, (uint32_t)length);
        memcpy(data + 4, o->exports[i].name, length);
        if (reply(c, NBD_REP_SERVER, data, (uint32_t)length + 4))
            return;
    }
    reply(c, NBD_REP_ACK, NULL, 0);
}

static int send_text(struct nbd_client *c, uint16_t what, const char *text)
{
    uint8_t data[2 + NBD_NAME_MAX];
    size_t length = strnlen(text, NBD_NAME_MAX);

    mull_put_be16(data, what);
    memcpy(data + 2, text, length);
    return reply(c, NBD_REP_INFO, data, (uint32_t)length + 2);
}

/* "NBD_OPT_INFO", "NBD_OPT_GO" */
static void info_or_go(struct nbd_client *c)
{
    const uint8_t *d = c->option_data;
    uint32_t length = c->option_length;
    uint32_t name = length >= 6 ? mull_be32(d) : 0;

    if (length < 6 || name > length - 6 || name > NBD_NAME_MAX ||
        mull_be16(d + 4 + name) * 2u != length - 6 - name) {
        refuse(c, NBD_REP_ERR_INVALID, "the lengths do not fit together");
        return;
    }
    const struct mull_nbd_export *e = find_export(c, d + 4, name);
    if (!e) {
        refuse(c, NBD_REP_ERR_UNKNOWN, "there is no such export");
        return;
    }
    for (uint32_t at = 4 + name + 2; at < length; at += 2) {
        uint16_t want = mull_be16(d + at);
        if (want == NBD_INFO_NAME && send_text(c, want, e->name))
            return;
        if (want == NBD_INFO_DESCRIPTION && e->description && send_text(c, want, e->description))
            return;
    }
    /* "Size constraints": any alignment will do; whole pages are best. */
    uint8_t sizes[14], export[12];
    mull_put_be16(sizes, NBD_INFO_BLOCK_SIZE);
    mull_put_be32(sizes + 2, 1);
    mull_put_be32(sizes + 6, 4096);
    mull_put_be32(sizes + 10, NBD_PAYLOAD_MAX);
    mull_put_be16(export, NBD_INFO_EXPORT);
    mull_put_be64(export + 2, mull_block_size(e->block));
    mull_put_be16(export + 10, export_flags(c, e));
    if (reply(c, NBD_REP_INFO, sizes, sizeof(sizes)) ||
        reply(c, NBD_REP_INFO, export, sizeof(export)) || reply(c, NBD_REP_ACK, NULL, 0))
        return;
    if (c->option == NBD_OPT_GO)
        begin_transmission(c, e);
}

static void start_tls(struct nbd_client *c)
{
    if (!c->server->o.tls) {
        refuse(c, NBD_REP_ERR_POLICY, "TLS is not set up here");
    } else if (c->channel.session || c->option_length) {
        refuse(c, NBD_REP_ERR_INVALID,
               c->option_length ? "STARTTLS has no data" : "TLS has begun already");
    } else if (!reply(c, NBD_REP_ACK, NULL, 0)) {
        nbd_expect(c, NBD_PHASE_TLS, NULL, 0);
    }
}

static void structured_reply(struct nbd_client *c)
{
    if (c->option_length) {
        refuse(c, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
        return;
    }
    c->structured = true;
    reply(c, NBD_REP_ACK, NULL, 0);
}

/* All contexts of an export, by number. @return its name in @name, or false: there are no more */
static bool context_at(const struct mull_nbd_export *e, unsigned i, struct nbd_context *out,
                       char *name, size_t room)
{
    if (i < 2) {
        out->kind = i ? NBD_CONTEXT_DEPTH : NBD_CONTEXT_ALLOCATION;
        out->bitmap = NULL;
        snprintf(name, room, "%s", i ? "qemu:allocation-depth" : "base:allocation");
        return true;
    }
    for (unsigned j = 0; e->bitmaps && e->bitmaps[j]; j++)
        if (j == (i - 2) / 2) {
            out->kind = i % 2 ? NBD_CONTEXT_CHANGES : NBD_CONTEXT_BITMAP;
            out->bitmap = e->bitmaps[j];
            snprintf(name, room, "%s:%s", i % 2 ? "mullion:changes" : "qemu:dirty-bitmap",
                     e->bitmaps[j]);
            return true;
        }
    return false;
}

/* "Metadata querying": a LIST query may end at a colon and mean everything below. */
static bool matches(const char *name, const uint8_t *query, uint32_t length, bool listing)
{
    size_t n = strlen(name);
    if (n == length && !memcmp(name, query, n))
        return true;
    return listing && length && length < n && query[length - 1] == ':' &&
           !memcmp(name, query, length);
}

static bool asked_for(const char *name, const uint8_t *data, uint32_t length, uint32_t queries,
                      bool listing)
{
    if (!queries)
        return listing;
    for (uint32_t at = 0, i = 0; i < queries && length - at >= 4; i++) {
        uint32_t n = mull_be32(data + at);
        at += 4;
        if (n > length - at)
            return false;
        if (matches(name, data + at, n, listing))
            return true;
        at += n;
    }
    return false;
}

/* Whether the queries fill the data exactly. */
static bool queries_fit(const uint8_t *data, uint32_t length, uint32_t queries)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < queries; i++) {
        if (length - at < 4)
            return false;
        uint32_t n = mull_be32(data + at);
        at += 4;
        if (n > length - at || n > NBD_NAME_MAX)
            return false;
        at += n;
    }
    return at == length;
}

static void meta_context(struct nbd_client *c)
{
    const uint8_t *d = c->option_data;
    uint32_t length = c->option_length, name = length >= 8 ? mull_be32(d) : 0;
    bool listing = c->option == NBD_OPT_LIST_META_CONTEXT;
    char text[NBD_NAME_MAX];
    struct nbd_context context;

    if (!listing) {
        c->ncontexts = 0;
        c->context_export = NULL;
    }
    if (!c->structured) {
        refuse(c, NBD_REP_ERR_INVALID, "structured replies come first");
        return;
    }
    uint32_t queries = length >= 8 && name <= length - 8 ? mull_be32(d + 4 + name) : UINT32_MAX;
    if (queries > NBD_QUERIES_MAX || name > NBD_NAME_MAX ||
        !queries_fit(d + 8 + name, length - 8 - name, queries)) {
        refuse(c,
               queries > NBD_QUERIES_MAX && queries != UINT32_MAX ? NBD_REP_ERR_TOO_BIG
                                                                  : NBD_REP_ERR_INVALID,
               "the lengths do not fit together, or there are too many queries");
        return;
    }
    const struct mull_nbd_export *e = find_export(c, d + 4, name);
    if (!e) {
        refuse(c, NBD_REP_ERR_UNKNOWN, "there is no such export");
        return;
    }
    for (unsigned i = 0; context_at(e, i, &context, text, sizeof(text)); i++) {
        uint8_t data[4 + NBD_NAME_MAX];
        if (!asked_for(text, d + 8 + name, length - 8 - name, queries, listing))
            continue;
        if (!listing && c->ncontexts == NBD_CONTEXTS_MAX)
            break;
        size_t n = strlen(text);
        mull_put_be32(data, listing ? 0 : c->ncontexts + 1);
        memcpy(data + 4, text, n);
        if (reply(c, NBD_REP_META_CONTEXT, data, (uint32_t)n + 4))
            return;
        if (!listing)
            c->contexts[c->ncontexts++] = context;
    }
    if (!listing)
        c->context_export = e;
    reply(c, NBD_REP_ACK, NULL, 0);
}

static void carry_out(struct nbd_client *c)
{
    switch (c->option) {
    case NBD_OPT_LIST:
        list(c);
        break;
    case NBD_OPT_STARTTLS:
        start_tls(c);
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        info_or_go(c);
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        structured_reply(c);
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        meta_context(c);
        break;
    default:
        refuse(c, NBD_REP_ERR_UNSUP, "not an option that we know");
        break;
    }
}

void nbd_got_option_data(struct nbd_client *c)
{
    bool clear = c->server->o.tls_required && !c->channel.session;

    if (c->option == NBD_OPT_ABORT) {
        reply(c, NBD_REP_ACK, NULL, 0);
        c->phase = NBD_PHASE_CLOSING;
        return;
    }
    /* "NBD_OPT_EXPORT_NAME": without TLS where it is needed, there is nothing but to hang up. */
    if (c->option == NBD_OPT_EXPORT_NAME) {
        if (clear)
            nbd_drop(c, "wanted an export without TLS");
        else
            export_name(c);
        return;
    }
    if (clear && c->option != NBD_OPT_STARTTLS)
        refuse(c, NBD_REP_ERR_TLS_REQD, "use TLS here: STARTTLS first");
    else
        carry_out(c);
    if (!c->dead && c->phase == NBD_PHASE_OPTION_DATA)
        next_option(c);
}
