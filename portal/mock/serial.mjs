// A serial console for the mock: the end of a boot, then a shell that knows a few words.

const GREEN = '\x1b[32m  OK  \x1b[0m';

export const bootLog = (name) =>
  [
    '[    0.000000] Linux version 6.1.0-42-cloud-amd64 (debian-kernel@lists.debian.org)',
    '[    0.000000] Command line: root=/dev/vda1 ro console=ttyS0',
    '[    0.214871] smpboot: Allowing 2 CPUs, 0 hotplug CPUs',
    '[    0.498120] virtio_blk virtio0: [vda] 41943040 512-byte logical blocks (21.5 GB/20.0 GiB)',
    '[    0.731544] EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.',
    '[    1.020771] systemd[1]: Detected virtualization kvm.',
    `[    1.022310] systemd[1]: Hostname set to <${name}>.`,
    `[${GREEN}] Reached target \x1b[1mlocal-fs.target\x1b[0m - Local File Systems.`,
    `[${GREEN}] Started \x1b[1msystemd-networkd.service\x1b[0m - Network Configuration.`,
    `[${GREEN}] Reached target \x1b[1mnetwork-online.target\x1b[0m - Network is Online.`,
    `[${GREEN}] Started \x1b[1mssh.service\x1b[0m - OpenBSD Secure Shell server.`,
    `[${GREEN}] Reached target \x1b[1mmulti-user.target\x1b[0m - Multi-User System.`,
    '',
    `Debian GNU/Linux 12 ${name} ttyS0`,
    '',
    `${name} login: root (automatic login)`,
    '',
  ].join('\r\n') + '\r\n';

const ANSWERS = {
  uptime: ' 17:04:11 up 3 days,  4:12,  1 user,  load average: 0.18, 0.22, 0.19',
  'uname -r': '6.1.0-42-cloud-amd64',
  'df -h /':
    'Filesystem      Size  Used Avail Use% Mounted on\r\n/dev/vda1        20G  3.1G   16G  17% /',
};

export function serveSerial(socket, machine, onTyped) {
  const prompt = `root@${machine.name}:~# `;
  let line = '';
  socket.send(Buffer.from(bootLog(machine.name) + prompt));
  socket.on('message', (data) => {
    const text = data.toString();
    onTyped(text);
    for (const c of text) {
      if (c === '\r') {
        const answer =
          ANSWERS[line.trim()] ?? (line.trim() ? `${line.trim()}: command not found` : '');
        socket.send(Buffer.from(`\r\n${answer ? `${answer}\r\n` : ''}${prompt}`));
        line = '';
      } else if (c === '\x7f') {
        if (line) socket.send(Buffer.from('\b \b'));
        line = line.slice(0, -1);
      } else {
        line += c;
        socket.send(Buffer.from(c));
      }
    }
  });
}
