// The places of the portal: the sidebar, the command palette and the shortcuts are made of this list.
import {
  Activity,
  Boxes,
  Database,
  Disc3,
  History,
  LayoutDashboard,
  Monitor,
  Network,
  Settings,
  ShieldCheck,
  type LucideIcon,
} from '../ui/icons';
import { datastores, has, images, isAdministrator, networks, pools } from '../state/store';

export interface Place {
  href: string;
  label: string;
  icon: LucideIcon;
  shortcut: string;
  shown(): boolean;
}

const always = (): boolean => true;

export const PLACES: Place[] = [
  { href: '#/', label: 'Overview', icon: LayoutDashboard, shortcut: 'g o', shown: always },
  { href: '#/machines', label: 'Machines', icon: Monitor, shortcut: 'g m', shown: always },
  {
    href: '#/images',
    label: 'Images',
    icon: Disc3,
    shortcut: 'g i',
    shown: () => images.available,
  },
  {
    href: '#/datastores',
    label: 'Datastores',
    icon: Database,
    shortcut: 'g d',
    shown: () => datastores.available,
  },
  {
    href: '#/networks',
    label: 'Networks',
    icon: Network,
    shortcut: 'g n',
    shown: () => networks.available,
  },
  {
    href: '#/pools',
    label: 'Pools',
    icon: Boxes,
    shortcut: 'g p',
    shown: () => has('pools') && pools.available,
  },
  { href: '#/events', label: 'Events', icon: Activity, shortcut: 'g e', shown: always },
  {
    href: '#/access',
    label: 'Access',
    icon: ShieldCheck,
    shortcut: 'g a',
    shown: always,
  },
  {
    href: '#/audit',
    label: 'Audit',
    icon: History,
    shortcut: 'g u',
    shown: () => isAdministrator.value,
  },
  { href: '#/settings', label: 'Settings', icon: Settings, shortcut: 'g s', shown: always },
];
