// An output-stationary systolic grid of 8 x 8 cells. Operands enter skewed from the left and the top and move one cell a
// clock; when the last pair has met in the last cell, results move down one row a clock and leave at the bottom.
`timescale 1ns / 1ns

module cell_os (
    input clk, input first, input valid, input shift,
    input signed [7:0] a_in, input signed [7:0] b_in, input signed [31:0] above,
    output reg first_out, output reg valid_out,
    output reg signed [7:0] a_out, output reg signed [7:0] b_out, output reg signed [31:0] sum
);
  initial begin
    sum = 0; valid_out = 0; first_out = 0; a_out = 0; b_out = 0;
  end
  always @(posedge clk) begin
    a_out <= a_in;
    b_out <= b_in;
    first_out <= first;
    valid_out <= valid;
    if (shift) sum <= above;
    else if (valid) sum <= (first ? 32'sd0 : sum) + a_in * b_in;
  end
endmodule

module bench;
  parameter K = 8;
  localparam N = 8;
  reg clk = 0, shift = 0;
  wire signed [7:0] a[0:N-1][0:N], b[0:N][0:N-1];
  wire first[0:N-1][0:N], valid[0:N-1][0:N];
  wire signed [31:0] sum[0:N][0:N-1];
  reg signed [7:0] a_edge[0:N-1], b_edge[0:N-1];
  reg first_edge[0:N-1], valid_edge[0:N-1];
  reg signed [31:0] result[0:N-1][0:N-1];
  integer cycle, i, j, step, emitted;

  genvar r, c;
  generate
    for (r = 0; r < N; r = r + 1) begin : row
      assign a[r][0] = a_edge[r];
      assign first[r][0] = first_edge[r];
      assign valid[r][0] = valid_edge[r];
      for (c = 0; c < N; c = c + 1) begin : column
        cell_os one (
            clk, first[r][c], valid[r][c], shift, a[r][c], b[r][c], sum[r][c],
            first[r][c+1], valid[r][c+1], a[r][c+1], b[r+1][c], sum[r+1][c]
        );
      end
    end
    for (c = 0; c < N; c = c + 1) begin : top
      assign b[0][c] = b_edge[c];
      assign sum[0][c] = 32'sd0;
    end
  endgenerate

  initial begin
    cycle = 0;
    emitted = 0;
    while (emitted < N) begin
      for (i = 0; i < N; i = i + 1) begin
        step = cycle - i;
        valid_edge[i] = step >= 0 && step < K;
        first_edge[i] = step == 0;
        a_edge[i] = valid_edge[i] ? (i * 7 + step * 3) % 16 - 8 : 0;
        b_edge[i] = valid_edge[i] ? (step * 5 + i * 11) % 16 - 8 : 0;
      end
      // The last cell's last product is in its register after 2N - 2 + K clocks; then a row leaves every clock.
      shift = cycle >= 2 * N - 2 + K;
      #1;
      if (shift) begin
        for (j = 0; j < N; j = j + 1) result[N-1-emitted][j] = sum[N][j];
        emitted = emitted + 1;
      end
      clk = 1;
      #1 clk = 0;
      cycle = cycle + 1;
    end
    $display("%0d", cycle);
    for (i = 0; i < N; i = i + 1) for (j = 0; j < N; j = j + 1) $display("%0d", result[i][j]);
    $finish;
  end
endmodule
