// The serial line in a terminal. What the machine said last comes first.
import '@xterm/xterm/css/xterm.css';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { useEffect, useRef } from 'preact/hooks';
import { notifyProblem } from '../../state/notices';
import { openConsole, type ConsoleProps } from './console-socket';

export default function SerialConsole({ id, name, onLine }: ConsoleProps) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const terminal = new Terminal({
      fontFamily: "'JetBrains Mono Variable', ui-monospace, monospace",
      fontSize: 13,
      scrollback: 10_000,
      cursorBlink: true,
      screenReaderMode: true,
      theme: { background: '#0b0e13', foreground: '#dfe4ec', cursor: '#6f95ff' },
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(box.current!);
    terminal.textarea?.setAttribute('aria-label', `Serial console of ${name}`);
    const state: { socket?: WebSocket; ended: boolean } = { ended: false };
    const resize = new ResizeObserver(() => fit.fit());
    resize.observe(box.current!);
    const typed = terminal.onData((text) => {
      if (state.socket?.readyState === WebSocket.OPEN)
        state.socket.send(new TextEncoder().encode(text));
    });

    const connect = async (): Promise<void> => {
      onLine('connecting');
      try {
        const socket = await openConsole(id, 'serial');
        if (state.ended) return socket.close();
        state.socket = socket;
        socket.onopen = () => {
          onLine('open');
          terminal.focus();
        };
        socket.onmessage = (e) =>
          terminal.write(
            typeof e.data === 'string' ? e.data : new Uint8Array(e.data as ArrayBuffer),
          );
        socket.onclose = () => !state.ended && onLine('closed');
      } catch (error) {
        if (state.ended) return;
        onLine('closed');
        notifyProblem('No console', error);
      }
    };
    void document.fonts
      ?.load('13px "JetBrains Mono Variable"')
      .finally(() => !state.ended && fit.fit());
    void connect();
    return () => {
      state.ended = true;
      state.socket?.close();
      typed.dispose();
      resize.disconnect();
      terminal.dispose();
    };
  }, [id]);
  return <div class="serial" ref={box} data-captures-keys />;
}
