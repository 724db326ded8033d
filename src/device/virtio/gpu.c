/*
 * The virtio GPU without 3D (virtio 1.2, 5.7): pictures of the guest's that it copies from its
 * memory into ours, one of which is on the screen, and a pointer. Where it stands in for a VGA,
 * that one is shown until a driver puts a picture on the screen.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_gpu.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "device/devices.h"
#include "device/display/vga.h"
#include "device/virtio/gpu_internal.h"
#include "device/virtio/virtio.h"

enum { CONTROL, CURSOR };
#define CONTROL_SIZE 256
#define CURSOR_SIZE 16
#define RESOURCES_MAX 256u
#define BYTES_MAX (128u << 20) /* of all pictures together */
#define SIDE_MAX 8192u
#define ENTRIES_MAX 32768u /* ranges of guest memory behind all pictures together */
#define ENTRIES_PART 256u
#define MINIMUM 64u
#define DEFAULT_WIDTH 1280u
#define DEFAULT_HEIGHT 800u
#define CLASS_VGA 0x030000
#define CLASS_DISPLAY 0x038000

/* A range of guest memory. */
struct entry {
    uint64_t gpa, len;
};

struct resource {
    uint32_t id; /* 0: free */
    uint32_t format, width, height;
    uint32_t first, count; /* its entries in the pool; none: no backing */
    uint32_t *pixels;      /* as the guest has them; not saved: read again */
};

struct gpu {
    struct mull_virtio v;
    struct mull_screen screen;
    const struct mull_screen *vga;  /* shown while no picture is; NULL: none */
    struct mull_virtio_inlay inlay; /* the VGA in the same function */
    _Atomic uint64_t changes;
    uint64_t bytes; /* of all pictures */
    struct resource resource[RESOURCES_MAX];
    uint32_t entries;
    struct entry entry[ENTRIES_MAX];  /* in the order they were given */
    uint32_t wish_width, wish_height; /* what the guest is told to show */
    uint32_t shown;                   /* the picture on the screen; 0: none */
    uint32_t x, y, width, height;     /* the part of it that is */
    bool cursor_used, cursor_visible;
    uint32_t cursor_width, cursor_height, hot_x, hot_y, cursor_x, cursor_y;
    uint64_t cursor_serial;
    uint32_t cursor[MULL_CURSOR_SIZE * MULL_CURSOR_SIZE];
    bool loaded; /* pictures have to be read again */
    struct mull_chain chain;
};

static void changed(struct gpu *g)
{
    atomic_fetch_add_explicit(&g->changes, 1, memory_order_relaxed);
}

/* ---- Resources ---- */

static struct resource *find(struct gpu *g, uint32_t id)
{
    for (unsigned i = 0; id && i < RESOURCES_MAX; i++)
        if (g->resource[i].id == id)
            return &g->resource[i];
    return NULL;
}

static uint64_t bytes_of(const struct resource *r)
{
    return 4ull * r->width * r->height;
}

static bool format_known(uint32_t format)
{
    switch (format) {
    case VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM:
    case VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM:
    case VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM:
    case VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM:
    case VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM:
    case VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM:
    case VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM:
    case VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM:
        return true;
    default:
        return false;
    }
}

/* A pixel as 0xAARRGGBB. Formats name their bytes in the order of addresses (5.7.6.8). */
static uint32_t colour(uint32_t format, uint32_t p)
{
    switch (format) {
    case VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM:
    case VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM:
        return p;
    case VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM:
    case VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM:
        return __builtin_bswap32(p);
    case VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM:
    case VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM:
        return p >> 8 | p << 24;
    default: /* red, green, blue, alpha */
        return (p & 0xff00ff00) | (p >> 16 & 0xff) | (p & 0xff) << 16;
    }
}

/* Take a picture's ranges out of the pool and close the gap. */
static void drop_backing(struct gpu *g, struct resource *r)
{
    uint32_t first = r->first, count = r->count;

    if (!count)
        return;
    memmove(g->entry + first, g->entry + first + count,
            (g->entries - first - count) * sizeof(*g->entry));
    g->entries -= count;
    r->first = r->count = 0;
    for (unsigned i = 0; i < RESOURCES_MAX; i++)
        if (g->resource[i].count && g->resource[i].first > first)
            g->resource[i].first -= count;
}

static void unref(struct gpu *g, struct resource *r)
{
    drop_backing(g, r);
    free(r->pixels);
    g->bytes -= bytes_of(r);
    if (g->shown == r->id) {
        g->shown = 0;
        changed(g);
    }
    memset(r, 0, sizeof(*r));
}

static uint32_t create_2d(struct gpu *g, const struct virtio_gpu_resource_create_2d *c)
{
    const struct resource new = {.id = le32toh(c->resource_id),
                                 .format = le32toh(c->format),
                                 .width = le32toh(c->width),
                                 .height = le32toh(c->height)};
    struct resource *r = NULL;

    if (!new.id || find(g, new.id))
        return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!format_known(new.format) || !new.width || !new.height || new.width > SIDE_MAX ||
        new.height > SIDE_MAX)
        return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
    for (unsigned i = 0; i < RESOURCES_MAX && !r; i++)
        if (!g->resource[i].id)
            r = &g->resource[i];
    if (!r || bytes_of(&new) > BYTES_MAX - g->bytes)
        return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
    uint32_t *pixels = calloc((size_t) new.width *new.height, 4);
    if (!pixels)
        return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
    *r = new;
    r->pixels = pixels;
    g->bytes += bytes_of(r);
    return VIRTIO_GPU_RESP_OK_NODATA;
}

static uint32_t attach_backing(struct gpu *g, const struct virtio_gpu_resource_attach_backing *c)
{
    struct resource *r = find(g, le32toh(c->resource_id));
    uint32_t count = le32toh(c->nr_entries), done = 0;
    struct virtio_gpu_mem_entry part[ENTRIES_PART];

    if (!r)
        return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (r->count || !count)
        return VIRTIO_GPU_RESP_ERR_UNSPEC;
    if (count > ENTRIES_MAX - g->entries)
        return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
    while (done < count) {
        uint32_t n = count - done < ENTRIES_PART ? count - done : ENTRIES_PART;
        if (mull_chain_read(&g->chain, sizeof(*c) + (uint64_t)done * sizeof(*part), part,
                            n * sizeof(*part)))
            return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
        for (uint32_t i = 0; i < n; i++)
            g->entry[g->entries + done + i] =
                (struct entry){le64toh(part[i].addr), le32toh(part[i].length)};
        done += n;
    }
    r->first = g->entries;
    r->count = count;
    g->entries += count;
    return VIRTIO_GPU_RESP_OK_NODATA;
}

/* Where a place in a picture's backing is; places are asked for in rising order. */
struct walk {
    const struct entry *at, *end;
    uint64_t base; /* of the entry */
};

static bool copy_row(struct gpu *g, struct walk *w, uint64_t offset, uint8_t *to, uint64_t len)
{
    while (len) {
        while (w->at < w->end && offset - w->base >= w->at->len) {
            w->base += w->at->len;
            w->at++;
        }
        if (w->at == w->end)
            return false;
        uint64_t inside = offset - w->base, part = w->at->len - inside;
        part = part < len ? part : len;
        if (inside > UINT64_MAX - w->at->gpa ||
            mull_mem_read(g->v.env.memory, w->at->gpa + inside, to, part))
            return false;
        to += part;
        offset += part;
        len -= part;
    }
    return true;
}

static bool transfer(struct gpu *g, struct resource *r, const struct virtio_gpu_rect *rect,
                     uint64_t offset)
{
    struct walk w = {g->entry + r->first, g->entry + r->first + r->count, 0};
    uint64_t stride = 4ull * r->width;

    /* A place in the backing is below 2^32 ranges of 2^32 bytes. */
    if (offset >> 62)
        return false;
    for (uint32_t y = 0; y < rect->height; y++)
        if (!copy_row(g, &w, offset + y * stride,
                      (uint8_t *)(r->pixels + (size_t)(rect->y + y) * r->width + rect->x),
                      4ull * rect->width))
            return false;
    return true;
}

/* @return false: not inside the picture, or empty */
static bool rect_of(const struct resource *r, const struct virtio_gpu_rect *wire,
                    struct virtio_gpu_rect *out)
{
    *out = (struct virtio_gpu_rect){le32toh(wire->x), le32toh(wire->y), le32toh(wire->width),
                                    le32toh(wire->height)};
    return out->width && out->height && out->x <= r->width && out->y <= r->height &&
           out->width <= r->width - out->x && out->height <= r->height - out->y;
}

/* ---- Commands ---- */

static uint32_t transfer_to_host(struct gpu *g, const struct virtio_gpu_transfer_to_host_2d *c)
{
    struct resource *r = find(g, le32toh(c->resource_id));
    struct virtio_gpu_rect rect;

    if (!r)
        return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!rect_of(r, &c->r, &rect) || !transfer(g, r, &rect, le64toh(c->offset)))
        return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
    return VIRTIO_GPU_RESP_OK_NODATA;
}

static uint32_t set_scanout(struct gpu *g, const struct virtio_gpu_set_scanout *c)
{
    struct virtio_gpu_rect rect;

    if (c->scanout_id)
        return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
    if (!c->resource_id) {
        g->shown = 0;
        changed(g);
        return VIRTIO_GPU_RESP_OK_NODATA;
    }
    struct resource *r = find(g, le32toh(c->resource_id));
    if (!r)
        return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!rect_of(r, &c->r, &rect))
        return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
    g->shown = r->id;
    g->x = rect.x;
    g->y = rect.y;
    g->width = rect.width;
    g->height = rect.height;
    changed(g);
    return VIRTIO_GPU_RESP_OK_NODATA;
}

static uint32_t flush(struct gpu *g, const struct virtio_gpu_resource_flush *c)
{
    struct resource *r = find(g, le32toh(c->resource_id));
    struct virtio_gpu_rect rect;

    if (!r)
        return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
    if (!rect_of(r, &c->r, &rect))
        return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
    if (r->id == g->shown)
        changed(g);
    return VIRTIO_GPU_RESP_OK_NODATA;
}

static void take_cursor(struct gpu *g, const struct resource *r)
{
    g->cursor_width = r->width < MULL_CURSOR_SIZE ? r->width : MULL_CURSOR_SIZE;
    g->cursor_height = r->height < MULL_CURSOR_SIZE ? r->height : MULL_CURSOR_SIZE;
    for (uint32_t y = 0; y < g->cursor_height; y++)
        for (uint32_t x = 0; x < g->cursor_width; x++)
            g->cursor[y * g->cursor_width + x] =
                colour(r->format, r->pixels[(size_t)y * r->width + x]);
}

static uint32_t cursor_command(struct gpu *g, const struct virtio_gpu_update_cursor *c)
{
    if (c->pos.scanout_id)
        return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
    g->cursor_x = le32toh(c->pos.x);
    g->cursor_y = le32toh(c->pos.y);
    changed(g);
    if (le32toh(c->hdr.type) == VIRTIO_GPU_CMD_MOVE_CURSOR)
        return VIRTIO_GPU_RESP_OK_NODATA;
    const struct resource *r = find(g, le32toh(c->resource_id));
    g->cursor_used = true;
    g->cursor_visible = r != NULL;
    g->cursor_serial++;
    if (!r)
        return c->resource_id ? VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID : VIRTIO_GPU_RESP_OK_NODATA;
    take_cursor(g, r);
    g->hot_x = le32toh(c->hot_x) < g->cursor_width ? le32toh(c->hot_x) : 0;
    g->hot_y = le32toh(c->hot_y) < g->cursor_height ? le32toh(c->hot_y) : 0;
    return VIRTIO_GPU_RESP_OK_NODATA;
}

union command {
    struct virtio_gpu_ctrl_hdr hdr;
    struct virtio_gpu_resource_create_2d create;
    struct virtio_gpu_resource_unref unref; /* also detach_backing: the same fields */
    struct virtio_gpu_set_scanout scanout;
    struct virtio_gpu_resource_flush flush;
    struct virtio_gpu_transfer_to_host_2d transfer;
    struct virtio_gpu_resource_attach_backing attach;
    struct virtio_gpu_cmd_get_edid edid;
    struct virtio_gpu_update_cursor cursor;
};

union response {
    struct virtio_gpu_ctrl_hdr hdr;
    struct virtio_gpu_resp_display_info display;
    struct virtio_gpu_resp_edid edid;
};

/* Bytes a command must have; 0: there is no such command on the queue. */
static size_t command_size(unsigned queue, uint32_t type)
{
    if (queue == CURSOR)
        return type == VIRTIO_GPU_CMD_UPDATE_CURSOR || type == VIRTIO_GPU_CMD_MOVE_CURSOR
                   ? sizeof(struct virtio_gpu_update_cursor)
                   : 0;
    switch (type) {
    case VIRTIO_GPU_CMD_GET_DISPLAY_INFO:
        return sizeof(struct virtio_gpu_ctrl_hdr);
    case VIRTIO_GPU_CMD_RESOURCE_CREATE_2D:
        return sizeof(struct virtio_gpu_resource_create_2d);
    case VIRTIO_GPU_CMD_RESOURCE_UNREF:
    case VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING:
        return sizeof(struct virtio_gpu_resource_unref);
    case VIRTIO_GPU_CMD_SET_SCANOUT:
        return sizeof(struct virtio_gpu_set_scanout);
    case VIRTIO_GPU_CMD_RESOURCE_FLUSH:
        return sizeof(struct virtio_gpu_resource_flush);
    case VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D:
        return sizeof(struct virtio_gpu_transfer_to_host_2d);
    case VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING:
        return sizeof(struct virtio_gpu_resource_attach_backing);
    case VIRTIO_GPU_CMD_GET_EDID:
        return sizeof(struct virtio_gpu_cmd_get_edid);
    default:
        return 0;
    }
}

static uint32_t display_info(struct gpu *g, struct virtio_gpu_resp_display_info *d, size_t *size)
{
    d->pmodes[0].r.width = htole32(g->wish_width);
    d->pmodes[0].r.height = htole32(g->wish_height);
    d->pmodes[0].enabled = htole32(1);
    *size = sizeof(*d);
    return VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
}

static uint32_t get_edid(struct gpu *g, const struct virtio_gpu_cmd_get_edid *c,
                         struct virtio_gpu_resp_edid *e, size_t *size)
{
    if (!mull_virtio_has(&g->v, VIRTIO_GPU_F_EDID))
        return VIRTIO_GPU_RESP_ERR_UNSPEC;
    if (c->scanout)
        return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
    gpu_edid(e->edid, g->wish_width, g->wish_height);
    e->size = htole32(GPU_EDID_SIZE);
    *size = sizeof(*e);
    return VIRTIO_GPU_RESP_OK_EDID;
}

/* @return the response's type; @size becomes its bytes where it is more than a header */
static uint32_t run(struct gpu *g, const union command *c, union response *response, size_t *size)
{
    struct resource *r;

    switch (le32toh(c->hdr.type)) {
    case VIRTIO_GPU_CMD_GET_DISPLAY_INFO:
        return display_info(g, &response->display, size);
    case VIRTIO_GPU_CMD_RESOURCE_CREATE_2D:
        return create_2d(g, &c->create);
    case VIRTIO_GPU_CMD_RESOURCE_UNREF:
    case VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING:
        r = find(g, le32toh(c->unref.resource_id));
        if (!r)
            return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
        if (le32toh(c->hdr.type) == VIRTIO_GPU_CMD_RESOURCE_UNREF)
            unref(g, r);
        else
            drop_backing(g, r);
        return VIRTIO_GPU_RESP_OK_NODATA;
    case VIRTIO_GPU_CMD_SET_SCANOUT:
        return set_scanout(g, &c->scanout);
    case VIRTIO_GPU_CMD_RESOURCE_FLUSH:
        return flush(g, &c->flush);
    case VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D:
        return transfer_to_host(g, &c->transfer);
    case VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING:
        return attach_backing(g, &c->attach);
    case VIRTIO_GPU_CMD_GET_EDID:
        return get_edid(g, &c->edid, &response->edid, size);
    default:
        return cursor_command(g, &c->cursor);
    }
}

/* The command in g->chain. @return bytes of the response */
static uint32_t handle(struct gpu *g, unsigned queue)
{
    union command c = {0};
    union response response = {0};
    size_t size = sizeof(response.hdr);
    uint32_t type = VIRTIO_GPU_RESP_ERR_UNSPEC;

    if (!mull_chain_read(&g->chain, 0, &c.hdr, sizeof(c.hdr))) {
        size_t wanted = command_size(queue, le32toh(c.hdr.type));
        /* The header was read; what follows it is read once, too. */
        if (wanted && (wanted == sizeof(c.hdr) ||
                       !mull_chain_read(&g->chain, sizeof(c.hdr), (uint8_t *)&c + sizeof(c.hdr),
                                        wanted - sizeof(c.hdr))))
            type = run(g, &c, &response, &size);
    }
    response.hdr.type = htole32(type);
    response.hdr.flags = c.hdr.flags & htole32(VIRTIO_GPU_FLAG_FENCE);
    response.hdr.fence_id = c.hdr.fence_id;
    response.hdr.ctx_id = c.hdr.ctx_id;
    if (size > g->chain.in_len)
        size = g->chain.in_len;
    return mull_chain_write(&g->chain, 0, &response, size) ? 0 : (uint32_t)size;
}

static void gpu_kick(struct mull_virtio *v, unsigned queue)
{
    struct gpu *g = (struct gpu *)v;
    struct mull_virtqueue *q = &v->queues[queue];

    do {
        mull_virtqueue_quiet(q);
        while (mull_virtqueue_pop(q, &g->chain) == 1) {
            uint32_t written = handle(g, queue);
            mull_virtqueue_push(q, g->chain.head, written);
        }
        mull_virtqueue_signal(q);
    } while (mull_virtqueue_listen(q));
}

static void forget(struct gpu *g)
{
    for (unsigned i = 0; i < RESOURCES_MAX; i++)
        if (g->resource[i].id)
            unref(g, &g->resource[i]);
    g->shown = 0;
    g->cursor_used = g->cursor_visible = false;
    changed(g);
}

static void gpu_reset(struct mull_virtio *v)
{
    forget((struct gpu *)v);
}

static struct virtio_gpu_config *config_of(struct gpu *g)
{
    return (struct virtio_gpu_config *)g->v.config;
}

/* Writing 1 to a bit of events_clear clears it in events_read (5.7.4.1). */
static void gpu_config_written(struct mull_virtio *v, unsigned offset, unsigned size)
{
    struct virtio_gpu_config *c = config_of((struct gpu *)v);

    c->events_read &= ~c->events_clear;
    c->events_clear = 0;
    c->num_scanouts = htole32(1);
    c->num_capsets = 0;
}

static const struct mull_virtio_ops gpu_virtio_ops = {
    .kick = gpu_kick, .reset = gpu_reset, .config_written = gpu_config_written};

/* ---- The screen ---- */

static struct resource *on_screen(struct gpu *g)
{
    return find(g, g->shown);
}

static unsigned bounded(uint32_t value, unsigned max)
{
    return value < max ? value : max;
}

static uint64_t screen_changes(void *opaque)
{
    struct gpu *g = opaque;
    uint64_t changes = atomic_load_explicit(&g->changes, memory_order_relaxed);

    return changes + (g->vga ? g->vga->ops->changes(g->vga->opaque) : 0);
}

/* What there is to see with no picture and no VGA: black, as large as was asked for. */
static void screen_size(void *opaque, unsigned *width, unsigned *height)
{
    struct gpu *g = opaque;

    mull_virtio_lock(&g->v);
    bool shown = on_screen(g);
    *width = bounded(shown ? g->width : g->wish_width, MULL_SCREEN_MAX_WIDTH);
    *height = bounded(shown ? g->height : g->wish_height, MULL_SCREEN_MAX_HEIGHT);
    mull_virtio_unlock(&g->v);
    if (!shown && g->vga)
        g->vga->ops->size(g->vga->opaque, width, height);
}

static bool screen_render(void *opaque, uint32_t *pixels, size_t max, unsigned *width,
                          unsigned *height)
{
    struct gpu *g = opaque;

    mull_virtio_lock(&g->v);
    const struct resource *r = on_screen(g);
    if (!r && g->vga) {
        mull_virtio_unlock(&g->v);
        return g->vga->ops->render(g->vga->opaque, pixels, max, width, height);
    }
    *width = bounded(r ? g->width : g->wish_width, MULL_SCREEN_MAX_WIDTH);
    *height = bounded(r ? g->height : g->wish_height, MULL_SCREEN_MAX_HEIGHT);
    bool fits = (size_t)*width * *height <= max;
    if (fits && !r)
        memset(pixels, 0, 4ul * *width * *height);
    for (unsigned y = 0; fits && r && y < *height; y++) {
        const uint32_t *from = r->pixels + (size_t)(g->y + y) * r->width + g->x;
        for (unsigned x = 0; x < *width; x++)
            *pixels++ = colour(r->format, from[x]) & 0xffffff;
    }
    mull_virtio_unlock(&g->v);
    return fits;
}

static int screen_text(void *opaque, char *out, size_t room)
{
    struct gpu *g = opaque;

    mull_virtio_lock(&g->v);
    bool shown = on_screen(g);
    mull_virtio_unlock(&g->v);
    return shown || !g->vga ? -1 : g->vga->ops->text(g->vga->opaque, out, room);
}

static bool screen_cursor(void *opaque, struct mull_cursor *out)
{
    struct gpu *g = opaque;

    mull_virtio_lock(&g->v);
    bool used = g->cursor_used && on_screen(g);
    if (used) {
        out->serial = g->cursor_serial;
        out->visible = g->cursor_visible;
        out->width = g->cursor_width;
        out->height = g->cursor_height;
        out->hot_x = g->hot_x;
        out->hot_y = g->hot_y;
        /* The driver tells the upper left corner. */
        out->x = (int16_t)g->cursor_x + (int)g->hot_x;
        out->y = (int16_t)g->cursor_y + (int)g->hot_y;
        memcpy(out->pixels, g->cursor, sizeof(out->pixels));
    }
    mull_virtio_unlock(&g->v);
    return used;
}

static int screen_resize(void *opaque, unsigned width, unsigned height)
{
    struct gpu *g = opaque;
    int ret = 0;

    if (width < MINIMUM || height < MINIMUM || width > MULL_SCREEN_MAX_WIDTH ||
        height > MULL_SCREEN_MAX_HEIGHT)
        return -EINVAL;
    mull_virtio_lock(&g->v);
    if (!mull_virtio_driver_ok(&g->v)) {
        ret = -ENOTSUP;
    } else {
        g->wish_width = width;
        g->wish_height = height;
        config_of(g)->events_read |= htole32(VIRTIO_GPU_EVENT_DISPLAY);
        mull_virtio_config_changed(&g->v);
    }
    mull_virtio_unlock(&g->v);
    return ret;
}

static const struct mull_screen_ops screen_ops = {.changes = screen_changes,
                                                  .size = screen_size,
                                                  .render = screen_render,
                                                  .text = screen_text,
                                                  .cursor = screen_cursor,
                                                  .resize = screen_resize};

/* ---- Life ---- */

static void gpu_destroy(struct mull_device *device)
{
    struct gpu *g = (struct gpu *)device;

    forget(g);
    mull_virtio_fini(&g->v);
    free(g);
}

static void device_reset(struct mull_device *device)
{
    struct gpu *g = (struct gpu *)device;

    mull_virtio_device_reset(device);
    mull_virtio_lock(&g->v);
    forget(g);
    g->wish_width = DEFAULT_WIDTH;
    g->wish_height = DEFAULT_HEIGHT;
    mull_virtio_unlock(&g->v);
}

/* Pictures are not saved: what the guest's memory has is as new, or newer. */
static void device_resume(struct mull_device *device)
{
    struct gpu *g = (struct gpu *)device;

    mull_virtio_lock(&g->v);
    for (unsigned i = 0; g->loaded && i < RESOURCES_MAX; i++) {
        struct resource *r = &g->resource[i];
        const struct virtio_gpu_rect all = {0, 0, r->width, r->height};
        if (r->id && r->count)
            transfer(g, r, &all, 0);
    }
    g->loaded = false;
    mull_virtio_unlock(&g->v);
    mull_virtio_device_resume(device);
}

static int resource_loaded(struct gpu *g, struct resource *r)
{
    if (!r->id)
        return 0;
    if (!format_known(r->format) || !r->width || !r->height || r->width > SIDE_MAX ||
        r->height > SIDE_MAX || bytes_of(r) > BYTES_MAX - g->bytes || r->first > g->entries ||
        r->count > g->entries - r->first)
        return -EINVAL;
    r->pixels = calloc((size_t)r->width * r->height, 4);
    if (!r->pixels)
        return -ENOMEM;
    g->bytes += bytes_of(r);
    return 0;
}

static int gpu_loaded(void *object, uint32_t version, struct mull_error *err)
{
    struct gpu *g = object;
    int ret = 0;

    g->bytes = 0;
    if (g->entries > ENTRIES_MAX || g->cursor_width > MULL_CURSOR_SIZE ||
        g->cursor_height > MULL_CURSOR_SIZE)
        ret = -EINVAL;
    for (unsigned i = 0; i < RESOURCES_MAX; i++) {
        struct resource *r = &g->resource[i];
        free(r->pixels); /* of what was there before */
        r->pixels = NULL;
        if (!ret)
            ret = resource_loaded(g, r);
        if (!r->pixels)
            memset(r, 0, sizeof(*r));
    }
    const struct resource *r = ret ? NULL : on_screen(g);
    if (r && (g->x > r->width || g->y > r->height || !g->width || !g->height ||
              g->width > r->width - g->x || g->height > r->height - g->y))
        ret = -EINVAL;
    if (g->hot_x >= MULL_CURSOR_SIZE || g->hot_y >= MULL_CURSOR_SIZE)
        g->hot_x = g->hot_y = 0;
    g->wish_width =
        g->wish_width < MINIMUM ? MINIMUM : bounded(g->wish_width, MULL_SCREEN_MAX_WIDTH);
    g->wish_height =
        g->wish_height < MINIMUM ? MINIMUM : bounded(g->wish_height, MULL_SCREEN_MAX_HEIGHT);
    g->loaded = true;
    changed(g);
    if (ret) {
        forget(g);
        g->entries = 0;
        return mull_fail(err, -ret, "virtio-gpu: a saved picture is not valid");
    }
    return 0;
}

static const struct mull_state_desc resource_desc = {
    .name = "virtio-gpu-resource",
    .version = 1,
    .oldest = 1,
    .fields = (const struct mull_field[]){MULL_FIELD(struct resource, id),
                                          MULL_FIELD(struct resource, format),
                                          MULL_FIELD(struct resource, width),
                                          MULL_FIELD(struct resource, height),
                                          MULL_FIELD(struct resource, first),
                                          MULL_FIELD(struct resource, count), MULL_FIELDS_END},
};

static const struct mull_field fields[] = {
    MULL_FIELD_NESTED(struct gpu, v, &mull_virtio_desc),
    MULL_FIELD_NESTED_ARRAY(struct gpu, resource, &resource_desc),
    MULL_FIELD(struct gpu, entries),
    MULL_FIELD_BLOB(struct gpu, entry),
    MULL_FIELD(struct gpu, wish_width),
    MULL_FIELD(struct gpu, wish_height),
    MULL_FIELD(struct gpu, shown),
    MULL_FIELD(struct gpu, x),
    MULL_FIELD(struct gpu, y),
    MULL_FIELD(struct gpu, width),
    MULL_FIELD(struct gpu, height),
    MULL_FIELD(struct gpu, cursor_used),
    MULL_FIELD(struct gpu, cursor_visible),
    MULL_FIELD(struct gpu, cursor_width),
    MULL_FIELD(struct gpu, cursor_height),
    MULL_FIELD(struct gpu, hot_x),
    MULL_FIELD(struct gpu, hot_y),
    MULL_FIELD(struct gpu, cursor_x),
    MULL_FIELD(struct gpu, cursor_y),
    MULL_FIELD_BLOB(struct gpu, cursor),
    MULL_FIELDS_END,
};

static const struct mull_state_desc gpu_desc = {
    .name = "virtio-gpu", .version = 1, .oldest = 1, .fields = fields, .after_load = gpu_loaded};

static const struct mull_device_ops gpu_ops = {
    .state = &gpu_desc,
    .reset = device_reset,
    .quiesce = mull_virtio_device_quiesce,
    .resume = device_resume,
    .destroy = gpu_destroy,
};

const struct mull_screen *mull_virtio_gpu_screen(struct mull_device *device)
{
    return &((struct gpu *)device)->screen;
}

static int add_vga_memory(void *opaque, struct mull_pci_function *f, struct mull_error *err)
{
    return mull_vga_add_memory(opaque, f, err);
}

int mull_virtio_gpu_create(const struct mull_device_env *env, struct mull_pci_bus *bus,
                           const struct mull_virtio_gpu_config *cfg, struct mull_device **out,
                           struct mull_error *err)
{
    struct gpu *g = calloc(1, sizeof(*g));
    if (!g)
        return mull_fail(err, ENOMEM, "%s: out of memory", cfg->name);
    g->v.device.ops = &gpu_ops;
    g->screen = (struct mull_screen){.ops = &screen_ops, .opaque = g};
    g->wish_width = DEFAULT_WIDTH;
    g->wish_height = DEFAULT_HEIGHT;
    g->vga = cfg->vga ? mull_vga_screen(cfg->vga) : NULL;
    int rc = mull_virtio_init(&g->v, env, cfg->name, VIRTIO_ID_GPU, MULL_BIT(VIRTIO_GPU_F_EDID),
                              &gpu_virtio_ops, err);
    if (!rc) {
        mull_virtio_add_queue(&g->v, CONTROL_SIZE);
        mull_virtio_add_queue(&g->v, CURSOR_SIZE);
        g->v.config_size = sizeof(struct virtio_gpu_config);
        config_of(g)->num_scanouts = htole32(1);
        if (cfg->vga) {
            g->inlay = (struct mull_virtio_inlay){
                .opaque = cfg->vga, .registers = mull_vga_registers(), .add = add_vga_memory};
            g->v.pci.inlay = &g->inlay;
            g->v.rom = cfg->rom;
            g->v.rom_size = cfg->rom_size;
        }
        rc = mull_virtio_pci_attach(&g->v, bus, cfg->devfn, cfg->vga ? CLASS_VGA : CLASS_DISPLAY,
                                    err);
    }
    if (rc) {
        gpu_destroy(&g->v.device);
        return rc;
    }
    *out = &g->v.device;
    return 0;
}
