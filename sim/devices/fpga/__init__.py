"""FPGA boards: a temporal overlay that runs any graph, and spatial dataflow folded into a budget."""
