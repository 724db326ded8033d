/*
 * Somebody else's VNC client, without a screen: libvncclient. Writes what it sees to a file (PPM),
 * moves the pointer and types.
 *
 *   vnc_peer HOST:PORT|PATH OUTPUT.ppm
 * [key=SYMBOL|text=TEXT|pointer=X,Y,MASK|size=WxH|cut=TEXT|await-cut|wait=MS]...
 *
 * VNC_ENCODINGS, VNC_PASSWORD, VNC_USER and VNC_CA (a file) say how.
 */
#include <rfb/rfbclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static unsigned updates, cuts;

static char *get_password(rfbClient *client)
{
    return strdup(getenv("VNC_PASSWORD") ? getenv("VNC_PASSWORD") : "");
}

/* What VeNCrypt asks for, each to be freed by the client. */
static rfbCredential *get_credential(rfbClient *client, int type)
{
    rfbCredential *c = calloc(1, sizeof(*c));
    if (type == rfbCredentialTypeX509) {
        c->x509Credential.x509CACertFile = getenv("VNC_CA") ? strdup(getenv("VNC_CA")) : NULL;
    } else {
        c->userCredential.username = strdup("anybody");
        c->userCredential.password = get_password(client);
    }
    return c;
}

static void got_update(rfbClient *client, int x, int y, int w, int h)
{
    updates++;
}

static void got_cut(rfbClient *client, const char *text, int len)
{
    printf("cut: %.*s\n", len, text);
    fflush(stdout);
    cuts++;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* @return 0: the server has gone */
static int serve(rfbClient *client, double seconds)
{
    for (double end = now() + seconds; now() < end;) {
        int ret = WaitForMessage(client, 20000);
        if (ret < 0 || (ret > 0 && !HandleRFBServerMessage(client)))
            return 0;
    }
    return 1;
}

static int write_picture(rfbClient *client, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return 0;
    fprintf(f, "P6\n%d %d\n255\n", client->width, client->height);
    for (int i = 0; i < client->width * client->height; i++) {
        uint32_t p;
        memcpy(&p, client->frameBuffer + 4 * i, 4);
        const uint8_t rgb[3] = {(uint8_t)(p >> client->format.redShift),
                                (uint8_t)(p >> client->format.greenShift),
                                (uint8_t)(p >> client->format.blueShift)};
        fwrite(rgb, 3, 1, f);
    }
    return !fclose(f);
}

static int act(rfbClient *client, const char *what)
{
    unsigned x, y, mask;
    double ms;
    int there = 1;

    if (!strcmp(what, "await-cut")) {
        for (double end = now() + 100; !cuts && there && now() < end;)
            there = serve(client, 0.1);
        return there;
    }
    if (sscanf(what, "wait=%lf", &ms) == 1)
        return serve(client, ms / 1000);
    if (sscanf(what, "key=%x", &x) == 1) {
        SendKeyEvent(client, x, TRUE);
        SendKeyEvent(client, x, FALSE);
    } else if (!strncmp(what, "cut=", 4)) {
        char *text = strdup(what + 4);
        SendClientCutText(client, text, (int)strlen(text));
        free(text);
    } else if (!strncmp(what, "text=", 5)) {
        for (const char *p = what + 5; *p; p++) {
            SendKeyEvent(client, (uint8_t)*p, TRUE);
            SendKeyEvent(client, (uint8_t)*p, FALSE);
        }
    } else if (sscanf(what, "pointer=%u,%u,%u", &x, &y, &mask) == 3) {
        SendPointerEvent(client, (int)x, (int)y, (int)mask);
    } else if (sscanf(what, "size=%ux%u", &x, &y) == 2) {
        SendExtDesktopSize(client, (uint16_t)x, (uint16_t)y);
    }
    return serve(client, 0.1);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    rfbClient *client = rfbGetClient(8, 3, 4);
    char *colon = strrchr(argv[1], ':');
    client->canHandleNewFBSize = TRUE;
    client->GetPassword = get_password;
    client->GetCredential = get_credential;
    client->GotFrameBufferUpdate = got_update;
    client->GotXCutText = got_cut;
    client->appData.useRemoteCursor = TRUE;
    client->appData.encodingsString = getenv("VNC_ENCODINGS");
    if (!client->appData.encodingsString)
        client->appData.encodingsString = "tight zrle raw";
    client->serverHost = strdup(argv[1]);
    if (colon && *argv[1] != '/') {
        client->serverHost[colon - argv[1]] = '\0';
        client->serverPort = atoi(colon + 1);
    }
    if (!rfbInitClient(client, NULL, NULL)) /* frees it where it fails */
        return 1;
    int there = 1;
    for (double end = now() + 60; !updates && there && now() < end;)
        there = serve(client, 0.1);
    there = there && serve(client, 0.2);
    for (int i = 3; i < argc && there; i++)
        there = act(client, argv[i]);
    int written = updates && write_picture(client, argv[2]);
    printf("%d x %d, %u rectangles, %s\n", client->width, client->height, updates,
           client->tlsSession ? "TLS" : "plain");
    rfbClientCleanup(client);
    return written ? 0 : 1;
}
