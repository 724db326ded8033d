// The objects of the API under the names the portal uses. They come from the host's OpenAPI document
// (schema.d.ts is generated from it); only what it leaves open, the machine's configuration
// (docs/configuration.md), is described here.
import type { components } from './schema';

type Schemas = components['schemas'];

export interface Page<T> {
  items: T[];
  next: string | null;
  total: number;
}

export interface DiskConfig {
  path: string;
  format?: string;
  bus?: string;
  readonly?: boolean;
  cbt?: boolean;
  [other: string]: unknown;
}

export interface CdromConfig {
  path?: string;
  bus?: string;
  [other: string]: unknown;
}

export interface NetworkConfig {
  type?: string;
  name?: string;
  model?: string;
  mac?: string;
  forward?: string[];
  vlan?: number;
  [other: string]: unknown;
}

export interface MachineConfig {
  firmware?: string;
  cpus?: number;
  memory?: number;
  engine?: string;
  clock?: string;
  boot?: { order?: string[]; menu?: boolean };
  disks?: DiskConfig[];
  cdroms?: CdromConfig[];
  networks?: NetworkConfig[];
  display?: { type?: string; [other: string]: unknown };
  [other: string]: unknown;
}

export type Resources = Schemas['Resources'];
export type ResourceKey = keyof Resources;

export type MachineSummary = Schemas['MachineSummary'];
export type MachineState = MachineSummary['state'];
export type Machine = MachineSummary & {
  config: MachineConfig;
  pending_config: MachineConfig | null;
  resources: Resources;
  granted: Schemas['Granted'] | null;
};
export type MachineCreate = Schemas['MachineCreate'];
export type MachineChange = Schemas['MachineChange'];
export type Role = Schemas['User']['role'];
export type Session = Schemas['Session'];
export type Host = Schemas['Host'];
export type Stats = Schemas['Stats'];
export type StatsRange = Stats['range'];
export type SeriesName = keyof Stats['series'];
export type User = Schemas['User'];
export type Group = Schemas['Group'];
export type Grant = Schemas['Grant'];
export type Token = Schemas['Token'];
export type TokenMade = Schemas['TokenMade'];
export type Disk = Schemas['Disk'];
export type Snapshot = Schemas['Snapshot'];
export type Image = Schemas['Image'];
export type Template = Schemas['Template'];
export type Datastore = Schemas['Datastore'];
export type StoredFile = Schemas['File'];
export type Network = Schemas['Network'];
export type NetworkPort = Schemas['NetworkPort'];
export type NetworkLease = Schemas['NetworkLease'];
export type Pool = Schemas['Pool'];
export type Task = Schemas['Task'];
export type TaskState = Task['state'];
export type HostEvent = Schemas['Event'];
export type AuditEntry = Schemas['AuditEntry'];
export type ProblemDetails = Partial<Schemas['Problem']>;
export type Upload = Schemas['Upload'];
export type ConsoleTicket = Schemas['ConsoleTicket'];
