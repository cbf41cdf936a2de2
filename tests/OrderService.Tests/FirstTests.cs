namespace OrderService.Tests;
