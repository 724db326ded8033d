import { defineConfig } from 'vitest/config';

// `base: './'`: the portal works below any path. The consoles are chunks of their own (lazy imports),
// so that the first paint does not wait for them.
export default defineConfig({
  base: './',
  resolve: {
    alias: {
      'lucide-icons': new URL('node_modules/lucide-preact/dist/esm/icons', import.meta.url)
        .pathname,
    },
  },
  esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
  build: {
    target: 'es2022',
    outDir: process.env.PORTAL_OUT ?? 'dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { '/api': { target: 'http://127.0.0.1:8080', ws: true } } },
  test: { include: ['test/**/*.test.ts'], environment: 'node' },
});
