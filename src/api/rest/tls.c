/*
 * The server's certificate: DATA/tls/cert.pem and key.pem, which an administrator may replace;
 * where there are none a self-signed one is made, whose fingerprint clients can pin.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/rest/rest.h"

#define VALID_DAYS 3650

static int set_names(gnutls_x509_crt_t cert)
{
    static const unsigned char loopback[4] = {127, 0, 0, 1};
    static const unsigned char loopback6[16] = {[15] = 1};
    char name[256] = "localhost";
    gethostname(name, sizeof(name) - 1);
    int ret = gnutls_x509_crt_set_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                            (unsigned)strlen(name));
    if (!ret)
        ret = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_DNSNAME, name,
                                                   (unsigned)strlen(name), GNUTLS_FSAN_SET);
    if (!ret)
        ret = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_DNSNAME, "localhost", 9,
                                                   GNUTLS_FSAN_APPEND);
    if (!ret)
        ret = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_IPADDRESS, loopback, 4,
                                                   GNUTLS_FSAN_APPEND);
    if (!ret)
        ret = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_IPADDRESS, loopback6, 16,
                                                   GNUTLS_FSAN_APPEND);
    return ret;
}

static int fill(gnutls_x509_crt_t cert, gnutls_x509_privkey_t key)
{
    char serial_hex[33];
    unsigned char serial[16];
    host_random_hex(serial_hex, 16);
    for (unsigned i = 0; i < 16; i++) {
        unsigned byte = 0;
        sscanf(serial_hex + 2 * i, "%2x", &byte);
        serial[i] = (unsigned char)byte;
    }
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 1); /* positive: RFC 5280, 4.1.2.2 */
    time_t now = time(NULL);
    int ret = gnutls_x509_crt_set_version(cert, 3);
    if (!ret)
        ret = gnutls_x509_crt_set_serial(cert, serial, sizeof(serial));
    if (!ret)
        ret = gnutls_x509_crt_set_activation_time(cert, now - 86400);
    if (!ret)
        ret = gnutls_x509_crt_set_expiration_time(cert, now + (time_t)VALID_DAYS * 86400);
    if (!ret)
        ret = gnutls_x509_crt_set_key(cert, key);
    if (!ret)
        ret = set_names(cert);
    if (!ret)
        ret = gnutls_x509_crt_set_key_purpose_oid(cert, GNUTLS_KP_TLS_WWW_SERVER, 0);
    if (!ret)
        ret = gnutls_x509_crt_set_key_usage(cert, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (!ret)
        ret = gnutls_x509_crt_set_basic_constraints(cert, 0, -1);
    if (!ret)
        ret = gnutls_x509_crt_sign2(cert, cert, key, GNUTLS_DIG_SHA256, 0);
    return ret;
}

static int make(const char *cert_path, const char *key_path, struct mull_error *err)
{
    gnutls_x509_privkey_t key = NULL;
    gnutls_x509_crt_t cert = NULL;
    gnutls_datum_t key_text = {NULL, 0}, cert_text = {NULL, 0};
    int ret = gnutls_x509_privkey_init(&key);
    if (!ret)
        ret = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                           GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    if (!ret)
        ret = gnutls_x509_crt_init(&cert);
    if (!ret)
        ret = fill(cert, key);
    if (!ret)
        ret = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &key_text);
    if (!ret)
        ret = gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &cert_text);
    if (ret)
        ret = mull_fail(err, EIO, "certificate: %s", gnutls_strerror(ret));
    if (!ret)
        ret = host_write_file(key_path, key_text.data, key_text.size, 0600, err);
    if (!ret)
        ret = host_write_file(cert_path, cert_text.data, cert_text.size, 0644, err);
    if (key_text.data)
        explicit_bzero(key_text.data, key_text.size);
    gnutls_free(key_text.data);
    gnutls_free(cert_text.data);
    gnutls_x509_privkey_deinit(key);
    gnutls_x509_crt_deinit(cert);
    return ret;
}

int tls_open(struct rest *rest, struct mull_error *err)
{
    char *cert = host_path(rest->host->places.data, "tls/cert.pem");
    char *key = host_path(rest->host->places.data, "tls/key.pem");
    int ret = cert && key ? 0 : mull_fail(err, ENOMEM, "certificate: no memory");
    /* The key is written first: a crash between the two makes both again. */
    if (!ret && access(cert, F_OK))
        ret = make(cert, key, err);
    if (!ret) {
        rest->cert = host_read_file(cert, 1u << 20, NULL, err);
        rest->key = host_read_file(key, 1u << 20, NULL, err);
        if (!rest->cert || !rest->key)
            ret = -EIO;
    }
    free(cert);
    free(key);
    return ret;
}
