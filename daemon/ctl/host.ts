// The host as doctor sees it: files, limits and other programs, each asked without ever waiting for long. Tests put another in
// its place where a fault cannot be had.
import { execFile } from 'node:child_process';
import { accessSync, constants, readFileSync, type Stats, statSync } from 'node:fs';

/** A program that takes longer is not waited for. Ours. */
const RUN_TIMEOUT_MS = 3000;

/** What is asked of a host. */
export interface Host {
  readonly nodeVersion: string;
  readonly uid: number;
  /** The text of a file; undefined: it cannot be read. */
  text(path: string): string | undefined;
  /** undefined: there is none. */
  stat(path: string): Pick<Stats, 'mode' | 'uid' | 'gid'> | undefined;
  canRead(path: string): boolean;
  /** What a program prints; undefined: it is not there, or fails. */
  run(program: string, args: readonly string[]): Promise<string | undefined>;
}

/** This host. */
export const thisHost: Host = {
  nodeVersion: process.versions.node,
  uid: process.getuid?.() ?? -1,
  text: (path) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
  stat: (path) => statSync(path, { throwIfNoEntry: false }),
  canRead: (path) => {
    try {
      accessSync(path, constants.R_OK);
      return true;
    } catch {
      return false;
    }
  },
  run: (program, args) =>
    new Promise((resolve) => {
      execFile(program, [...args], { timeout: RUN_TIMEOUT_MS }, (error, stdout) =>
        resolve(error === null ? stdout : undefined),
      );
    }),
};
