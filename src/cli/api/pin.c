/*
 * The public key that an unknown server shows, as a pin (RFC 7469, section 2.4): what a person
 * compares once, and what is trusted from then on. See api.h.
 */
#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/api/internal.h"

#define DER_MAX 16384

int api_certificate_pin(const char *pem, char pin[64], struct mull_error *err)
{
    gnutls_datum_t text = {(unsigned char *)pem, (unsigned)strlen(pem)}, base64 = {0};
    gnutls_x509_crt_t certificate = NULL;
    gnutls_pubkey_t key = NULL;
    unsigned char digest[32], der[DER_MAX];
    size_t size = sizeof(der);

    bool good = !gnutls_x509_crt_init(&certificate) &&
                !gnutls_x509_crt_import(certificate, &text, GNUTLS_X509_FMT_PEM) &&
                !gnutls_pubkey_init(&key) && !gnutls_pubkey_import_x509(key, certificate, 0) &&
                !gnutls_pubkey_export(key, GNUTLS_X509_FMT_DER, der, &size) &&
                !gnutls_hash_fast(GNUTLS_DIG_SHA256, der, size, digest) &&
                !gnutls_base64_encode2(&(gnutls_datum_t){digest, sizeof(digest)}, &base64);
    if (good)
        snprintf(pin, 64, "sha256//%.*s", (int)base64.size, (const char *)base64.data);
    gnutls_free(base64.data);
    gnutls_pubkey_deinit(key);
    gnutls_x509_crt_deinit(certificate);
    return good ? 0 : mull_fail(err, EPROTO, "the server's certificate cannot be read");
}

/* The first certificate of the chain that libcurl saw. */
static const char *certificate_of(const struct curl_certinfo *info)
{
    for (int i = 0; info && i < info->num_of_certs && !i; i++)
        for (const struct curl_slist *l = info->certinfo[i]; l; l = l->next)
            if (!strncmp(l->data, "Cert:", 5))
                return l->data + 5;
    return NULL;
}

int api_server_pin(const char *url, char pin[64], struct mull_error *err)
{
    struct mull_curl curl;
    struct curl_certinfo *info = NULL;
    int ret = mull_curl_load(&curl, err);

    if (ret)
        return ret;
    CURL *h = curl.init();
    curl.setopt(h, CURLOPT_URL, url);
    curl.setopt(h, CURLOPT_NOBODY, 1L);
    curl.setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl.setopt(h, CURLOPT_TIMEOUT, 20L);
    curl.setopt(h, CURLOPT_PROTOCOLS_STR, "https");
    curl.setopt(h, CURLOPT_SSL_VERIFYPEER, 0L);
    curl.setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
    curl.setopt(h, CURLOPT_CERTINFO, 1L);
    CURLcode code = curl.perform(h);
    if (code == CURLE_OK)
        curl.getinfo(h, CURLINFO_CERTINFO, &info);
    const char *pem = certificate_of(info);
    if (pem)
        ret = api_certificate_pin(pem, pin, err);
    else
        ret = mull_fail(err, EIO, "%s: %s", url,
                        code == CURLE_OK ? "shows no certificate" : curl.text(code));
    curl.cleanup(h);
    mull_curl_unload(&curl);
    return ret;
}
