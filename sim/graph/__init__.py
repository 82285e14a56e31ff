"""What is computed: element types, operators with exact costs, the folded graph."""
