// The host as doctor sees it: files, users, sockets and other programs, each asked without ever waiting for long. Tests put another
// in its place where a fault cannot be had.
import { execFile } from 'node:child_process';
import { accessSync, closeSync, constants, readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { openMemfd } from '../../shared-memory/memfd.js';
import { PAGE_BYTES } from '../../shared-memory/mapping.js';

/** A program that takes longer is not waited for. Ours. */
const RUN_TIMEOUT_MS = 3000;

export type FileFacts = Pick<Stats, 'mode' | 'uid' | 'gid'>;

/** What is asked of a host. */
export interface Host {
  readonly nodeVersion: string;
  /** Who runs this. */
  readonly uid: number;
  readonly gids: readonly number[];
  /** The text of a file; undefined: it cannot be read. */
  text(path: string): string | undefined;
  /** undefined: there is none, or it cannot be looked at. */
  stat(path: string): FileFacts | undefined;
  /** Names of what is in a folder; none when it cannot be read. */
  list(folder: string): readonly string[];
  canRead(path: string): boolean;
  /** Why no sealed memory file can be made; undefined: one can. */
  memfdFailure(): string | undefined;
  /** What a program prints; undefined: it is not there, fails, or does not end. */
  run(program: string, args: readonly string[]): Promise<string | undefined>;
}

/** This host. */
export const thisHost: Host = {
  nodeVersion: process.versions.node,
  uid: process.getuid?.() ?? -1,
  gids: [...new Set([process.getgid?.() ?? -1, ...(process.getgroups?.() ?? [])])],
  text: (path) => orNothing(() => readFileSync(path, 'utf8')),
  stat: (path) => orNothing(() => statSync(path)),
  list: (folder) => orNothing(() => readdirSync(folder)) ?? [],
  canRead: (path) =>
    orNothing(() => {
      accessSync(path, constants.R_OK);
      return true;
    }) ?? false,
  memfdFailure: () => {
    try {
      closeSync(openMemfd('vhost-rngctl-doctor', PAGE_BYTES));
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  },
  run: (program, args) =>
    new Promise((resolve) => {
      execFile(program, [...args], { timeout: RUN_TIMEOUT_MS }, (error, stdout) =>
        resolve(error === null ? stdout : undefined),
      );
    }),
};

function orNothing<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
