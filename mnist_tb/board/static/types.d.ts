// What the server answers, for all modules of the page: `@import {Run} from './types.js'`. tests/board/test_types.py
// holds it against real answers, and reads it line by line: a key stands on a line of its own.

/** Of a run; the last two are the page's own words. See events/status.py. */
export type State = 'running' | 'completed' | 'interrupted' | 'pruned' | 'failed' | 'silent' | 'unknown';

/** A page asks `runs?since=NUMBER` for what has changed since that answer. */
export interface RunsAnswer {
  /** Another one counts anew. */
  server: string;
  number: number;
  /** Of all runs, in their order. */
  names: string[];
  /** Those that have changed. */
  runs: Run[];
}

/** A run, by its newest status. What is not known is absent or null; of another program's run that is the most. */
export interface Run {
  /** Its name. */
  run: string;
  state: State;
  /** When it began, seconds since 1970. */
  started: number;
  /** When its newest status was written. */
  written: number;
  /** For how many seconds nothing was heard of it, if it has not ended. */
  quiet?: number;
  /** Completed updates. */
  step: number | null;
  steps?: number;
  phase?: string;
  dataset?: string;
  device?: string;
  precision?: string;
  epoch?: number;
  epochs?: number;
  batch?: number;
  batches?: number;
  /** Losses in nats, accuracies from 0 to 1. */
  loss?: number | null;
  accuracy?: number | null;
  val_loss?: number | null;
  val_accuracy?: number | null;
  test_loss?: number | null;
  test_accuracy?: number | null;
  test_images?: number | null;
  lr?: number | null;
  images_per_second?: number | null;
  seconds?: number;
  remaining?: number | null;
  error?: string;
  seed?: number | string | null;
  tags?: string[];
  note?: string;
}

/** `curves?run=NAME`. */
export interface CurvesAnswer {
  run: string;
  curves: Curves<Point>;
}

/** `means?run=NAME&run=NAME`. */
export interface MeansAnswer {
  /** What has to be said of the lines, in words. */
  about: string;
  groups: Group[];
  /** Runs beyond the most that are averaged at once. */
  left_out: string[];
}

/** The runs of one configuration. */
export interface Group {
  /** What it is called. */
  name: string;
  /** Their names. */
  runs: string[];
  /** As HParams has them, without the seed. */
  settings: Record<string, string>;
  /** How many. */
  seeds: number;
  curves: Curves<MeanPoint>;
}

/** `epochs?run=NAME`. */
export interface EpochsAnswer {
  /** Those whose weights there are, ascending: number and step. */
  epochs: [number, number][];
}

/** Kind → split → points. */
export interface Curves<P> {
  loss?: Splits<P>;
  accuracy?: Splits<P>;
}

export interface Splits<P> {
  train?: P[];
  val?: P[];
  test?: P[];
}

/** Step, value and wall time, seconds since 1970; null is a gap. */
export type Point = [number, number | null, number];

/** Step, mean and standard deviation over the seeds, null with one seed; both null are a gap. */
export type MeanPoint = [number, number | null, number | null];

/** The first line of `weights?run=NAME&epoch=NUMBER`; the numbers follow, see tracking/weights_export.py. */
export interface WeightsHeader {
  /** What an image goes through: `name`, `kind`, and the settings of that kind. */
  modules: Record<string, unknown>[];
  /** Layer → the lengths of its axes, in the order of the numbers. */
  shapes: Record<string, number[]>;
  type: 'float32' | 'float16';
  classes: string[];
  /** Of the training pixels, 0 to 1. */
  mean: number;
  std: number;
}

/** The first line of `samples?run=NAME`; the pixels follow. */
export interface SamplesHeader {
  labels: number[];
}

/** The first line of `result?run=NAME`; the pixels follow, compressed. */
export interface ResultHeader {
  classes: string[];
  /** A row for each true class. */
  counts: number[][];
  /** Number in the test set, true class, predicted class, confidence from 0 to 1; mistakes first. */
  images: [number, number, number, number][];
}

/** Fetches an address of the plugin. */
export type Ask = (address: string) => Promise<Response>;
