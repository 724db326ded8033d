// The one-time WebSocket of a console.
import { post } from '../../api/client';
import type { ConsoleTicket } from '../../api/types';

export async function openConsole(id: string, type: 'serial' | 'vnc'): Promise<WebSocket> {
  const ticket = await post<ConsoleTicket>(`/machines/${id}/console`, { type });
  const url = new URL(ticket.url, window.location.href);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  return socket;
}

export interface ConsoleProps {
  id: string;
  name: string;
  onLine(line: 'connecting' | 'open' | 'closed'): void;
}
