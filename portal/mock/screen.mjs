// A guest's screen for the mock: a picture, and a VNC server (RFB 3.8, RFC 6143) that shows it.

export const WIDTH = 640;
export const HEIGHT = 400;

/** A log-in screen: a dark gradient with a lit window of four panes. RGB. */
export function picture() {
  const rgb = Buffer.alloc(WIDTH * HEIGHT * 3);
  const panes = [
    [250, 110, 66, 100, [235, 240, 252]],
    [326, 110, 66, 100, [120, 146, 220]],
    [250, 220, 66, 60, [120, 146, 220]],
    [326, 220, 66, 60, [180, 196, 240]],
  ];
  for (let y = 0; y < HEIGHT; y++)
    for (let x = 0; x < WIDTH; x++) {
      let color = [18 + (y * 16) / HEIGHT, 26 + (y * 20) / HEIGHT, 52 + (x * 40) / WIDTH];
      for (const [left, top, width, height, lit] of panes)
        if (x >= left && x < left + width && y >= top && y < top + height) color = lit;
      rgb.set(color, (y * WIDTH + x) * 3);
    }
  return rgb;
}

/** Serve one VNC client on a WebSocket (`ws`). `onKey` hears the keys that are pressed. */
export function serveVnc(socket, rgb, onKey = () => {}) {
  let pending = Buffer.alloc(0);
  let state = 'version';
  const sizes = { 0: 20, 3: 10, 4: 8, 5: 6 };
  socket.send(Buffer.from('RFB 003.008\n'));

  const frame = () => {
    const head = Buffer.alloc(16);
    head.writeUInt16BE(1, 2);
    head.writeUInt16BE(WIDTH, 8);
    head.writeUInt16BE(HEIGHT, 10);
    const pixels = Buffer.alloc(WIDTH * HEIGHT * 4);
    for (let i = 0; i < WIDTH * HEIGHT; i++) {
      pixels[i * 4] = rgb[i * 3];
      pixels[i * 4 + 1] = rgb[i * 3 + 1];
      pixels[i * 4 + 2] = rgb[i * 3 + 2];
    }
    socket.send(Buffer.concat([head, pixels]));
  };
  const init = () => {
    const name = Buffer.from('mock');
    const head = Buffer.alloc(24);
    head.writeUInt16BE(WIDTH, 0);
    head.writeUInt16BE(HEIGHT, 2);
    head.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16], 4);
    head.writeUInt32BE(name.length, 20);
    socket.send(Buffer.concat([head, name]));
  };
  let sent = false;
  const step = () => {
    if (state === 'version' && pending.length >= 12) {
      socket.send(Buffer.from([1, 1]));
      state = 'security';
      return 12;
    }
    if (state === 'security' && pending.length >= 1) {
      socket.send(Buffer.alloc(4));
      state = 'init';
      return 1;
    }
    if (state === 'init' && pending.length >= 1) {
      init();
      state = 'normal';
      return 1;
    }
    if (state !== 'normal' || !pending.length) return 0;
    const type = pending[0];
    let size = sizes[type] ?? 0;
    if (type === 2 && pending.length >= 4) size = 4 + pending.readUInt16BE(2) * 4;
    if (type === 6 && pending.length >= 8) size = 8 + Math.abs(pending.readInt32BE(4));
    if (!size || pending.length < size) return 0;
    if (type === 3 && !sent) {
      sent = true;
      frame();
    }
    if (type === 4 && pending[1]) onKey(pending.readUInt32BE(4));
    return size;
  };
  socket.on('message', (data) => {
    pending = Buffer.concat([pending, data]);
    for (let n = step(); n > 0; n = step()) pending = pending.subarray(n);
  });
}
