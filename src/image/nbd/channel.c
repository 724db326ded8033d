/* Plain and TLS byte channels. See channel.h. */
#include "image/nbd/channel.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PSK_FILE_LINE 1024
#define TLS_RECORD 16384u

struct mull_tls {
    bool server, verify;
    gnutls_certificate_credentials_t certificate;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_psk_client_credentials_t psk_client;
};

static int tls_fail(struct mull_error *err, const char *what, int code)
{
    return mull_fail(err, EPROTO, "TLS: %s: %s", what, gnutls_strerror(code));
}

static char *join(const char *directory, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static bool there(const char *path)
{
    return path && !access(path, F_OK);
}

static int load_certificates(struct mull_tls *tls, const char *directory, struct mull_error *err)
{
    char *ca = join(directory, "ca-cert.pem"), *crl = join(directory, "ca-crl.pem");
    char *cert = join(directory, tls->server ? "server-cert.pem" : "client-cert.pem");
    char *key = join(directory, tls->server ? "server-key.pem" : "client-key.pem");
    int ret = ca && crl && cert && key ? 0 : mull_fail(err, ENOMEM, "TLS: out of memory");
    int code = ret ? 0 : gnutls_certificate_allocate_credentials(&tls->certificate);

    if (!ret && code < 0)
        ret = tls_fail(err, "credentials", code);
    /* A server needs an authority only to check its clients. */
    bool need_ca = !tls->server || tls->verify;
    if (!ret && (need_ca || there(ca))) {
        code = gnutls_certificate_set_x509_trust_file(tls->certificate, ca, GNUTLS_X509_FMT_PEM);
        if (code < 0)
            ret = tls_fail(err, ca, code);
    }
    if (!ret && there(crl)) {
        code = gnutls_certificate_set_x509_crl_file(tls->certificate, crl, GNUTLS_X509_FMT_PEM);
        if (code < 0)
            ret = tls_fail(err, crl, code);
    }
    if (!ret && (tls->server || there(cert))) {
        code =
            gnutls_certificate_set_x509_key_file(tls->certificate, cert, key, GNUTLS_X509_FMT_PEM);
        if (code < 0)
            ret = tls_fail(err, cert, code);
    }
    free(ca);
    free(crl);
    free(cert);
    free(key);
    return ret;
}

/* GnuTLS reads a server's file itself; a client's key is found here. */
static int load_client_psk(struct mull_tls *tls, const char *path, const char *user,
                           struct mull_error *err)
{
    char line[PSK_FILE_LINE];
    int code = GNUTLS_E_INSUFFICIENT_CREDENTIALS;
    FILE *f = fopen(path, "re");

    if (!f)
        return mull_fail(err, errno, "TLS: %s: %s", path, strerror(errno));
    while (code < 0 && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\r\n")] = 0;
        char *colon = strrchr(line, ':');
        if (!colon || line[0] == '#')
            continue;
        *colon = 0;
        if (user && strcmp(user, line))
            continue;
        gnutls_datum_t key = {(unsigned char *)colon + 1, (unsigned)strlen(colon + 1)};
        code = gnutls_psk_set_client_credentials(tls->psk_client, line, &key, GNUTLS_PSK_KEY_HEX);
        if (code < 0)
            break;
    }
    fclose(f);
    gnutls_memset(line, 0, sizeof(line));
    return code < 0 ? mull_fail(err, EINVAL, "TLS: %s: no usable \"user:hexkey\" line%s%s", path,
                                user ? " for " : "", user ? user : "")
                    : 0;
}

static int load_psk(struct mull_tls *tls, const char *path, const char *user,
                    struct mull_error *err)
{
    int code;

    if (!tls->server) {
        code = gnutls_psk_allocate_client_credentials(&tls->psk_client);
        return code < 0 ? tls_fail(err, "credentials", code)
                        : load_client_psk(tls, path, user, err);
    }
    if (access(path, R_OK))
        return mull_fail(err, errno, "TLS: %s: %s", path, strerror(errno));
    code = gnutls_psk_allocate_server_credentials(&tls->psk_server);
    if (code >= 0)
        code = gnutls_psk_set_server_credentials_file(tls->psk_server, path);
    return code < 0 ? tls_fail(err, path, code) : 0;
}

int mull_tls_load(bool server, const char *directory, const char *psk_file, const char *user,
                  bool verify, struct mull_tls **out, struct mull_error *err)
{
    struct mull_tls *tls = calloc(1, sizeof(*tls));
    int ret;

    if (!tls)
        return mull_fail(err, ENOMEM, "TLS: out of memory");
    tls->server = server;
    tls->verify = verify;
    ret = psk_file ? load_psk(tls, psk_file, user, err) : load_certificates(tls, directory, err);
    if (ret) {
        mull_tls_free(tls);
        return ret;
    }
    *out = tls;
    return 0;
}

void mull_tls_free(struct mull_tls *tls)
{
    if (!tls)
        return;
    if (tls->certificate)
        gnutls_certificate_free_credentials(tls->certificate);
    if (tls->psk_server)
        gnutls_psk_free_server_credentials(tls->psk_server);
    if (tls->psk_client)
        gnutls_psk_free_client_credentials(tls->psk_client);
    free(tls);
}

int mull_channel_secure(struct mull_channel *c, struct mull_tls *tls, const char *hostname,
                        struct mull_error *err)
{
    bool psk = tls->psk_server || tls->psk_client;
    gnutls_session_t session;
    int code =
        gnutls_init(&session, (tls->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NO_SIGNAL);

    if (code < 0)
        return tls_fail(err, "session", code);
    code =
        gnutls_priority_set_direct(session,
                                   psk ? "NORMAL:-VERS-TLS1.1:-VERS-TLS1.0:+ECDHE-PSK:+DHE-PSK:+PSK"
                                       : "NORMAL:-VERS-TLS1.1:-VERS-TLS1.0",
                                   NULL);
    if (code >= 0 && tls->certificate)
        code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->certificate);
    if (code >= 0 && psk)
        code = gnutls_credentials_set(session, GNUTLS_CRD_PSK,
                                      tls->server ? (void *)tls->psk_server : tls->psk_client);
    if (code >= 0 && tls->certificate && tls->server)
        gnutls_certificate_server_set_request(session, tls->verify ? GNUTLS_CERT_REQUIRE
                                                                   : GNUTLS_CERT_IGNORE);
    if (code >= 0 && tls->certificate && !tls->server && hostname && *hostname)
        code = gnutls_server_name_set(session, GNUTLS_NAME_DNS, hostname, strlen(hostname));
    if (code < 0) {
        gnutls_deinit(session);
        return tls_fail(err, "session", code);
    }
    if (tls->certificate && (!tls->server || tls->verify))
        gnutls_session_set_verify_cert(session, tls->server ? NULL : hostname, 0);
    gnutls_transport_set_int(session, c->fd);
    c->session = session;
    return 0;
}

int mull_channel_handshake(struct mull_channel *c, struct mull_error *err)
{
    int code;

    do
        code = gnutls_handshake(c->session);
    while (code < 0 && code != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(code));
    if (code == GNUTLS_E_AGAIN)
        return -EAGAIN;
    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
        gnutls_datum_t text;
        unsigned status = gnutls_session_get_verify_cert_status(c->session);
        if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) >= 0) {
            mull_fail(err, EPROTO, "TLS: %s", (char *)text.data);
            gnutls_free(text.data);
            return -EPROTO;
        }
    }
    if (code < 0)
        return tls_fail(err, "handshake", code);
    c->handshaken = true;
    return 0;
}

bool mull_channel_wants_write(const struct mull_channel *c)
{
    return c->session && gnutls_record_get_direction(c->session) == 1;
}

ssize_t mull_channel_receive(struct mull_channel *c, void *buf, size_t length)
{
    ssize_t n;

    if (!c->session) {
        do
            n = recv(c->fd, buf, length, 0);
        while (n < 0 && errno == EINTR);
        return n < 0 ? (errno == EWOULDBLOCK ? -EAGAIN : -errno) : n;
    }
    do
        n = gnutls_record_recv(c->session, buf, length);
    while (n < 0 && n != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)n));
    return n == GNUTLS_E_AGAIN                   ? -EAGAIN
           : n == GNUTLS_E_PREMATURE_TERMINATION ? 0
           : n < 0                               ? -EPROTO
                                                 : n;
}

/* A record GnuTLS could not send whole stays with it: to be asked for again without data. */
static ssize_t send_tls(struct mull_channel *c, const struct iovec *iov, int niov)
{
    char record[TLS_RECORD];
    size_t length = 0;
    ssize_t n;

    if (c->resend) {
        length = c->resend_length;
        n = gnutls_record_send(c->session, NULL, 0);
    } else {
        for (int i = 0; i < niov && length < sizeof(record); i++) {
            size_t part = iov[i].iov_len;
            if (part > sizeof(record) - length)
                part = sizeof(record) - length;
            memcpy(record + length, iov[i].iov_base, part);
            length += part;
        }
        n = gnutls_record_send(c->session, record, length);
    }
    c->resend = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
    c->resend_length = length;
    return c->resend ? -EAGAIN : n < 0 ? -EPIPE : (ssize_t)length;
}

ssize_t mull_channel_send(struct mull_channel *c, const struct iovec *iov, int niov)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)niov};
    ssize_t n;

    if (c->session)
        return send_tls(c, iov, niov);
    do
        n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? (errno == EWOULDBLOCK ? -EAGAIN : -errno) : n;
}

bool mull_channel_pending(const struct mull_channel *c)
{
    return c->session && gnutls_record_check_pending(c->session) > 0;
}

void mull_channel_close(struct mull_channel *c, bool polite)
{
    if (c->session) {
        if (polite && c->handshaken)
            gnutls_bye(c->session, GNUTLS_SHUT_WR);
        gnutls_deinit(c->session);
    }
    c->session = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}
