// The screen by VNC, scaled to the room there is.
import RFB from '@novnc/novnc';
import { useEffect, useRef } from 'preact/hooks';
import { notifyProblem } from '../../state/notices';
import { openConsole, type ConsoleProps } from './console-socket';

export default function VncConsole({ id, name, onLine }: ConsoleProps) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const state: { rfb?: RFB; ended: boolean } = { ended: false };
    const connect = async (): Promise<void> => {
      onLine('connecting');
      try {
        const socket = await openConsole(id, 'vnc');
        if (state.ended) return socket.close();
        const rfb = new RFB(box.current!, socket, { shared: true });
        state.rfb = rfb;
        rfb.scaleViewport = true;
        rfb.background = '#0b0e13';
        rfb.addEventListener('connect', () => {
          onLine('open');
          box.current?.querySelector('canvas')?.setAttribute('aria-label', `Screen of ${name}`);
          rfb.focus();
        });
        rfb.addEventListener('disconnect', () => !state.ended && onLine('closed'));
      } catch (error) {
        if (state.ended) return;
        onLine('closed');
        notifyProblem('No console', error);
      }
    };
    void connect();
    return () => {
      state.ended = true;
      state.rfb?.disconnect();
    };
  }, [id]);
  return <div class="vnc" ref={box} data-captures-keys />;
}
