/* Unit tests of pictures of a machine's screen: rows that come in pieces, a screen that changes its
 * size, and answers that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <gnutls/gnutls.h>
#include <png.h>

#include "vmm/picture.h"

static uint8_t colour(unsigned at)
{
    return (uint8_t)(at * 7 + 3);
}

/* As mullion-vmm answers: @rows rows from @row on, of a picture whose bytes are counted. */
static json_t *answer(unsigned width, unsigned height, unsigned row, unsigned rows)
{
    size_t size = 3 * (size_t)width * rows;
    uint8_t *rgb = malloc(size + 1);
    gnutls_datum_t in = {rgb, (unsigned)size}, out = {0};

    for (size_t i = 0; i < size; i++)
        rgb[i] = colour((unsigned)(3 * width * row + i));
    assert_int_equal(gnutls_base64_encode2(&in, &out), 0);
    json_t *o = json_pack("{s:i, s:i, s:i, s:s%}", "width", (int)width, "height", (int)height,
                          "rows", (int)rows, "data", (char *)out.data, (size_t)out.size);
    gnutls_free(out.data);
    free(rgb);
    assert_non_null(o);
    return o;
}

static enum vmm_picture_state add(struct vmm_picture *p, json_t *o)
{
    enum vmm_picture_state state = vmm_picture_add(p, o);

    json_decref(o);
    return state;
}

static void comes_in_pieces(void **state)
{
    struct vmm_picture p = {0};
    size_t size;
    (void)state;

    assert_int_equal(add(&p, answer(5, 4, 0, 3)), VMM_PICTURE_MORE);
    json_t *params = vmm_picture_params(&p);
    assert_int_equal(json_integer_value(json_object_get(params, "row")), 3);
    json_decref(params);
    assert_int_equal(add(&p, answer(5, 4, 3, 1)), VMM_PICTURE_WHOLE);

    void *png = vmm_picture_png(&p, &size);
    png_image image = {.version = PNG_IMAGE_VERSION};
    uint8_t back[5 * 4 * 3];
    assert_non_null(png);
    assert_true(png_image_begin_read_from_memory(&image, png, size));
    assert_int_equal(image.width, 5);
    assert_int_equal(image.height, 4);
    image.format = PNG_FORMAT_RGB;
    assert_true(png_image_finish_read(&image, NULL, back, 0, NULL));
    for (unsigned i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], colour(i));
    free(png);
    vmm_picture_free(&p);
    assert_null(p.rgb);
}

static void begins_again_where_the_size_changes(void **state)
{
    struct vmm_picture p = {0};
    (void)state;

    assert_int_equal(add(&p, answer(5, 4, 0, 3)), VMM_PICTURE_MORE);
    assert_int_equal(add(&p, answer(2, 8, 3, 5)), VMM_PICTURE_MORE);
    assert_int_equal(p.rows, 0); /* those were not the first ones */
    assert_int_equal(add(&p, answer(2, 8, 0, 8)), VMM_PICTURE_WHOLE);
    assert_int_equal(p.rgb[47], colour(47));
    vmm_picture_free(&p);
}

static void does_not_wait_for_ever(void **state)
{
    struct vmm_picture p = {0};
    enum vmm_picture_state last = VMM_PICTURE_MORE;
    unsigned i;
    (void)state;

    for (i = 0; i < 100 && last == VMM_PICTURE_MORE; i++)
        last = add(&p, answer(2 + i % 2, 2, 0, 1));
    assert_int_equal(last, VMM_PICTURE_BROKEN);
    assert_true(i < 30);
    vmm_picture_free(&p);
}

static void takes_no_nonsense(void **state)
{
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"width\": 0, \"height\": 1, \"rows\": 1, \"data\": \"AAAA\"}",
        "{\"width\": 1, \"height\": -1, \"rows\": 1, \"data\": \"AAAA\"}",
        "{\"width\": 2561, \"height\": 1, \"rows\": 1, \"data\": \"AAAA\"}",
        "{\"width\": 4294967297, \"height\": 1, \"rows\": 1, \"data\": \"AAAA\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 0, \"data\": \"\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": -1, \"data\": \"AAAA\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 2, \"data\": \"AAAAAAAA\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 4294967297, \"data\": \"AAAA\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1, \"data\": \"\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1, \"data\": \"AAA=\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1, \"data\": \"AAAAAAAA\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1, \"data\": \"!!!!\"}",
        "{\"width\": 1, \"height\": 1, \"rows\": 1, \"data\": 7}",
    };
    (void)state;

    assert_int_equal(add(&(struct vmm_picture){0}, NULL), VMM_PICTURE_BROKEN);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vmm_picture p = {0};
        json_t *o = json_loads(bad[i], 0, NULL);
        assert_non_null(o);
        if (add(&p, o) != VMM_PICTURE_BROKEN)
            fail_msg("taken: %s", bad[i]);
        vmm_picture_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_in_pieces),
        cmocka_unit_test(begins_again_where_the_size_changes),
        cmocka_unit_test(does_not_wait_for_ever),
        cmocka_unit_test(takes_no_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
