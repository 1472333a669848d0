// SPDX-License-Identifier: Apache-2.0

const CODE = { green: 32, yellow: 33, red: 31, dim: 2, bold: 1 } as const;

export type Style = keyof typeof CODE;
export type Paint = (style: Style, text: string) => string;

export const plain: Paint = (_, text) => text;
export const coloured: Paint = (style, text) => `\u001b[${CODE[style]}m${text}\u001b[0m`;
