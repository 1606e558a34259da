//! Log output: text on a terminal, one JSON object a line in a pipe.
