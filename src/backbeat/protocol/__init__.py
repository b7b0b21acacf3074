"""The words both sides of a socket speak: messages, frames' contents, reasons. No I/O."""
