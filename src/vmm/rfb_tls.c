/*
 * See rfb_tls.h. GnuTLS does the work; anonymous key exchange exists up to TLS 1.2 only.
 */
#include "vmm/rfb_tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>

struct rfb_credentials {
    gnutls_certificate_credentials_t x509; /* NULL: anonymous */
    gnutls_anon_server_credentials_t anonymous;
};

struct rfb_channel {
    gnutls_session_t session;
    bool interrupted; /* a record waits to be sent */
};

void rfb_credentials_free(struct rfb_credentials *c)
{
    if (!c)
        return;
    if (c->x509)
        gnutls_certificate_free_credentials(c->x509);
    if (c->anonymous)
        gnutls_anon_free_server_credentials(c->anonymous);
    free(c);
}

static int load_x509(struct rfb_credentials *c, const char *directory, struct mull_error *err)
{
    char certificate[4096], key[4096];

    if (snprintf(certificate, sizeof(certificate), "%s/server-cert.pem", directory) >=
            (int)sizeof(certificate) ||
        snprintf(key, sizeof(key), "%s/server-key.pem", directory) >= (int)sizeof(key))
        return mull_fail(err, ENAMETOOLONG, "--display: tls-certificates=: the path is too long");
    int ret = gnutls_certificate_allocate_credentials(&c->x509);
    if (!ret)
        ret = gnutls_certificate_set_x509_key_file(c->x509, certificate, key, GNUTLS_X509_FMT_PEM);
    if (ret)
        return mull_fail(err, EINVAL,
                         "--display: tls-certificates=%s: server-cert.pem and server-key.pem: %s",
                         directory, gnutls_strerror(ret));
    gnutls_certificate_set_known_dh_params(c->x509, GNUTLS_SEC_PARAM_MEDIUM);
    return 0;
}

int rfb_credentials_create(const char *directory, struct rfb_credentials **out,
                           struct mull_error *err)
{
    struct rfb_credentials *c = calloc(1, sizeof(*c));
    int ret = 0;

    if (!c)
        return mull_fail(err, ENOMEM, "--display: no memory");
    if (directory) {
        ret = load_x509(c, directory, err);
    } else if (gnutls_anon_allocate_server_credentials(&c->anonymous)) {
        ret = mull_fail(err, ENOMEM, "--display: no memory");
    } else {
        gnutls_anon_set_server_known_dh_params(c->anonymous, GNUTLS_SEC_PARAM_MEDIUM);
    }
    if (ret) {
        rfb_credentials_free(c);
        return ret;
    }
    *out = c;
    return 0;
}

struct rfb_channel *rfb_channel_create(struct rfb_credentials *c, int fd)
{
    const char *priority =
        c->x509 ? "NORMAL" : "NORMAL:-VERS-TLS1.3:-VERS-DTLS-ALL:+ANON-ECDH:+ANON-DH";
    struct rfb_channel *channel = calloc(1, sizeof(*channel));

    if (!channel)
        return NULL;
    if (gnutls_init(&channel->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL)) {
        free(channel);
        return NULL;
    }
    int ret = gnutls_priority_set_direct(channel->session, priority, NULL);
    if (!ret)
        ret = c->x509 ? gnutls_credentials_set(channel->session, GNUTLS_CRD_CERTIFICATE, c->x509)
                      : gnutls_credentials_set(channel->session, GNUTLS_CRD_ANON, c->anonymous);
    if (ret) {
        rfb_channel_free(channel);
        return NULL;
    }
    gnutls_transport_set_int(channel->session, fd);
    return channel;
}

void rfb_channel_free(struct rfb_channel *c)
{
    if (!c)
        return;
    gnutls_deinit(c->session);
    free(c);
}

static bool later(ssize_t ret)
{
    return ret == GNUTLS_E_AGAIN || ret == GNUTLS_E_INTERRUPTED;
}

int rfb_channel_handshake(struct rfb_channel *c, bool *writing)
{
    int ret;

    do
        ret = gnutls_handshake(c->session);
    while (ret < 0 && !later(ret) && !gnutls_error_is_fatal(ret));
    *writing = later(ret) && gnutls_record_get_direction(c->session);
    return !ret ? 1 : later(ret) ? 0 : -1;
}

static ssize_t outcome(ssize_t ret)
{
    if (ret >= 0)
        return ret;
    errno = later(ret) ? EAGAIN : EIO;
    return -1;
}

ssize_t rfb_channel_send(struct rfb_channel *c, const uint8_t *data, size_t size)
{
    ssize_t ret = c->interrupted ? gnutls_record_send(c->session, NULL, 0)
                                 : gnutls_record_send(c->session, data, size);

    c->interrupted = later(ret);
    return outcome(ret);
}

ssize_t rfb_channel_receive(struct rfb_channel *c, uint8_t *data, size_t size)
{
    return outcome(gnutls_record_recv(c->session, data, size));
}

bool rfb_channel_pending(const struct rfb_channel *c)
{
    return gnutls_record_check_pending(c->session) > 0;
}
